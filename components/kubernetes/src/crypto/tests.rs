use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use outrider_components::Kind;
use outrider_components::crypto::With;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;

/// A symmetric key of 32 bytes, in base64 twice: as secrets are, and as the key
/// itself is.
async fn one(Path((namespace, name)): Path<(String, String)>) -> Json<Value> {
    Json(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {
            "key": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQT0=",
            "empty": "",
            "text": "LS0tLS1CRUdJTiBub3RoaW5n",
        },
    }))
}

/// The component, and its API server, which ends when it is dropped.
async fn secrets(default_namespace: Option<&str>) -> (Local<Secrets>, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let routes = Router::new().route("/api/v1/namespaces/{namespace}/secrets/{name}", get(one));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = axum::serve(listener, routes).await;
    });
    let url = format!("http://{address}").parse().expect("is a URL");
    let client = Client::try_from(kube::Config::new(url)).expect("a client");
    let secrets = Secrets {
        client,
        default_namespace: default_namespace.map(str::to_owned),
    };
    (Local(secrets), tasks)
}

#[tokio::test]
async fn a_key_of_a_secret_wraps_keys() {
    let (crypto, _server) = secrets(Some("team")).await;
    for key in ["team/keys/key", "keys/key"] {
        let with = With {
            key,
            algorithm: "A256KW",
            ..With::default()
        };
        let wrapped = crypto.wrap_key(&with, &[7; 32]).await.expect("wraps");
        assert_eq!(wrapped.data.len(), 40);
        let key = crypto.unwrap_key(&with, &wrapped).await.expect("unwraps");
        assert_eq!(key, [7; 32]);
    }
}

#[tokio::test]
async fn what_is_no_key_is_an_error() {
    let (crypto, _server) = secrets(None).await;
    for (key, wanted, kind) in [
        ("keys/key", "doesn't have a namespace", Kind::Invalid),
        ("key", "not in a valid format", Kind::Invalid),
        ("a/b/c/d", "not in a valid format", Kind::Invalid),
        ("team/keys/absent", "key not found", Kind::NotFound),
        ("team/keys/empty", "key not found", Kind::NotFound),
        ("team/../key", "", Kind::Invalid),
        ("team/keys/text", "failed to parse key", Kind::Invalid),
    ] {
        let with = With {
            key,
            algorithm: "A256KW",
            ..With::default()
        };
        let error = crypto.wrap_key(&with, &[7; 32]).await.expect_err(key);
        let text = error.to_string();
        assert!(text.contains(wanted), "{key}: {text}");
        assert_eq!(error.kind(), kind, "{key}: {text}");
    }
}
