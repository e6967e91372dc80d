use outrider_conformance::server;
use outrider_conformance::state::{Promises, run_with, survives};

use crate::state_version;

fn connection_string(server: &server::Server) -> String {
    let port = server.port;
    format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable")
}

/// JSON is kept as the server has it.
const JSON: Promises = Promises {
    keeps_text: false,
    any_key: true,
};

#[tokio::test]
async fn state() {
    let Some(server) = server::postgresql().await else {
        return;
    };
    let string = connection_string(&server);
    let properties = [("connectionString", &*string), ("maxConns", "5")];
    let store = state_version("state.postgresql", "v1", &properties).await;
    run_with(&*store, JSON).await;

    // Beside the other, in one database.
    let mut properties = properties.to_vec();
    properties.extend([("tablePrefix", "two_"), ("queryExecMode", "exec")]);
    let store = state_version("state.postgresql", "v2", &properties).await;
    outrider_conformance::state::run(&*store).await;

    let schema = [
        (
            "url",
            &*format!("postgres://postgres@{}/postgres", server.address()),
        ),
        ("tableName", "public.items"),
        ("metadataTableName", "public.about"),
    ];
    let store = state_version("state.postgres", "", &schema).await;
    run_with(&*store, JSON).await;
}

#[tokio::test]
async fn acknowledged_state_survives_the_server() {
    let Some(mut server) = server::postgresql().await else {
        return;
    };
    let string = connection_string(&server);
    for version in ["v1", "v2"] {
        let properties = [
            ("connectionString", &*string),
            ("tablePrefix", "two_"),
            ("timeout", "3s"),
        ];
        let store = state_version("state.postgresql", version, &properties).await;
        survives(&*store, &mut server).await;
        store.close().await.expect("close");
    }
}
