use outrider_conformance::server;
use outrider_conformance::state::{Promises, run_with};

/// The protocol has no spaces in keys.
const PROMISES: Promises = Promises {
    keeps_text: true,
    any_key: false,
};

#[tokio::test]
async fn state() {
    let Some(one) = server::memcached().await else {
        return;
    };
    let properties = [("hosts", &*one.address())];
    let store = crate::state("state.memcached", &properties).await;
    run_with(&*store, PROMISES).await;

    let two = server::memcached().await.expect("the first one started");
    let hosts = format!("{}, {}", one.address(), two.address());
    let store = crate::state("state.memcached", &[("hosts", &hosts)]).await;
    run_with(&*store, PROMISES).await;
}

/// What it keeps is gone with the server; the connections are made again.
#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    use outrider_components::state::{GetRequest, SetRequest, Value};

    let Some(mut server) = server::memcached().await else {
        return;
    };
    let properties = [("hosts", &*server.address())];
    let store = crate::state("state.memcached", &properties).await;
    let value = Value::Json(bytes::Bytes::from_static(b"1"));
    let request = SetRequest::new("k", value);
    store.set(&request).await.expect("set");
    server.kill().await;
    store.set(&request).await.expect_err("there is no server");
    server.restart().await;
    store.set(&request).await.expect("set");
    let item = store.get(&GetRequest::new("k")).await.expect("get");
    assert_eq!(item.expect("is there").value, "1");
}
