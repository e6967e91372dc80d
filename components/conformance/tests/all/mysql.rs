use outrider_conformance::server;
use outrider_conformance::state::{run, survives};

#[tokio::test]
async fn state() {
    let Some(server) = server::mariadb().await else {
        return;
    };
    let string = format!("root@tcp({})/?allowNativePasswords=true", server.address());
    let store = crate::state("state.mysql", &[("connectionString", &string)]).await;
    run(&*store).await;
    // Another one beside it, whose database is there already.
    let properties = [("connectionString", &*string), ("tableName", "other")];
    let store = crate::state("state.mysql", &properties).await;
    run(&*store).await;
}

#[tokio::test]
async fn acknowledged_state_survives_the_server() {
    let Some(mut server) = server::mariadb().await else {
        return;
    };
    let string = format!("root@tcp({})/", server.address());
    let properties = [("connectionString", &*string), ("timeoutInSeconds", "3")];
    let store = crate::state("state.mysql", &properties).await;
    survives(&*store, &mut server).await;
    store.close().await.expect("close");
}
