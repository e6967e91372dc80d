use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use outrider_components::Kind;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;

fn secret(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        // "user" and "secret" in base64.
        "data": {"username": "dXNlcg==", "password": "c2VjcmV0"},
    })
}

async fn one(Path((namespace, name)): Path<(String, String)>) -> (StatusCode, Json<Value>) {
    let failure = |code: u16, reason: &str, message: String| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message});
        (StatusCode::from_u16(code).expect("is a status"), Json(body))
    };
    match name.as_str() {
        "absent" => failure(404, "NotFound", format!("secrets {name:?} not found")),
        "hidden" => failure(403, "Forbidden", format!("secrets {name:?} is forbidden")),
        _ => (StatusCode::OK, Json(secret(&namespace, &name))),
    }
}

/// Two pages of one secret each.
async fn list(
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let (name, next) = match query.get("continue").map(String::as_str) {
        None => ("first", "more"),
        Some("more") => ("second", ""),
        Some(other) => panic!("no such page: {other}"),
    };
    Json(json!({
        "apiVersion": "v1",
        "kind": "SecretList",
        "metadata": {"continue": next},
        "items": [secret(&namespace, name)],
    }))
}

/// A store, and its API server, which ends when it is dropped.
async fn store(context: Context, properties: &[(&str, &str)]) -> (Kubernetes, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let routes = Router::new()
        .route("/api/v1/namespaces/{namespace}/secrets", get(list))
        .route("/api/v1/namespaces/{namespace}/secrets/{name}", get(one));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.expect("serves") });
    let uri = format!("http://{address}").parse().expect("is a URI");
    let client = Client::try_from(kube::Config::new(uri)).expect("needs no TLS");
    let metadata = Metadata::new("kubernetes", properties.iter().copied());
    let fields = Fields::read(&metadata).expect("are valid");
    (Kubernetes::new(client, fields, &context), server)
}

fn in_namespace(namespace: &str) -> Context {
    Context {
        namespace: namespace.to_owned(),
        ..Context::default()
    }
}

#[tokio::test]
async fn a_secret_is_its_keys_and_values() {
    let (store, _server) = store(in_namespace("apps"), &[]).await;
    let secret = store.get(&GetRequest::new("db")).await.expect("is there");
    let wanted = [("username", "user"), ("password", "secret")];
    assert_eq!(
        secret,
        wanted
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    );
}

#[tokio::test]
async fn all_pages_of_a_namespace_are_read() {
    let (store, _server) = store(in_namespace("apps"), &[]).await;
    let all = store.bulk_get(&Pairs::new()).await.expect("lists");
    let mut names: Vec<_> = all.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(all["second"]["username"], "user");
}

#[tokio::test]
async fn errors_have_the_text_of_the_server() {
    let (store, _server) = store(in_namespace("apps"), &[]).await;
    for (name, kind, text) in [
        ("absent", Kind::NotFound, r#"secrets "absent" not found"#),
        ("hidden", Kind::Denied, r#"secrets "hidden" is forbidden"#),
    ] {
        let error = store
            .get(&GetRequest::new(name))
            .await
            .expect_err("is refused");
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
    }
}

#[tokio::test]
async fn the_namespace_comes_from_the_request_the_process_or_the_component() {
    let named = Pairs::from([("namespace".to_owned(), "asked".to_owned())]);
    for (metadata, own, default, wanted) in [
        (&named, "own", "default", Some("asked")),
        (&Pairs::new(), "own", "default", Some("own")),
        (&Pairs::new(), "", "default", Some("default")),
        (&Pairs::new(), "", "", None),
    ] {
        let (store, _server) = store(in_namespace(own), &[("defaultNamespace", default)]).await;
        assert_eq!(store.namespace(metadata).ok(), wanted);
    }
}

#[tokio::test]
async fn invalid_names_are_not_sent() {
    let (store, _server) = store(in_namespace("apps"), &[]).await;
    let namespace = |text: &str| Pairs::from([("namespace".to_owned(), text.to_owned())]);
    for (name, metadata) in [
        ("db?x", Pairs::new()),
        ("db%3Fx", Pairs::new()),
        ("../../default/secrets/db", Pairs::new()),
        ("", Pairs::new()),
        ("db", namespace("prod/secrets/other?")),
        ("db", namespace("..")),
    ] {
        let request = GetRequest {
            name: name.to_owned(),
            metadata: metadata.clone(),
        };
        let error = store.get(&request).await.expect_err("is refused");
        assert_eq!(error.kind(), Kind::Invalid, "{name} {metadata:?}: {error}");
        if !metadata.is_empty() {
            let error = store.bulk_get(&metadata).await.expect_err("is refused");
            assert_eq!(error.kind(), Kind::Invalid, "{metadata:?}: {error}");
        }
    }
}
