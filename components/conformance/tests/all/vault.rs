//! A double of HashiCorp Vault, after its documentation of the key-value
//! engine, version 2.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use outrider_components::secrets::{GetRequest, Store};
use outrider_components::{Context, Error, Kind, Metadata, Pairs};
use serde_json::{Value, json};

const TOKEN: &str = "root";

fn secrets() -> BTreeMap<&'static str, Vec<Value>> {
    BTreeMap::from([
        (
            "dapr/db",
            vec![
                json!({"user": "old"}),
                json!({"user": "u", "password": "p"}),
            ],
        ),
        ("dapr/deep/er/key", vec![json!({"key": "v"})]),
        ("elsewhere", vec![json!({"key": "w"})]),
    ])
}

async fn answer(
    method: Method,
    Path((engine, kind, path)): Path<(String, String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("x-vault-token") != Some(TOKEN) || header("x-vault-request") != Some("true") {
        let body = json!({"errors": ["permission denied"]}).to_string();
        return (StatusCode::FORBIDDEN, body).into_response();
    }
    let absent = (StatusCode::NOT_FOUND, json!({"errors": []}).to_string()).into_response();
    let secrets = secrets();
    match (engine.as_str(), method.as_str(), kind.as_str()) {
        ("secret", "GET", "data") => {
            let Some(versions) = secrets.get(path.as_str()) else {
                return absent;
            };
            let number: usize = query["version"].parse().expect("a number");
            let at = number.checked_sub(1).unwrap_or(versions.len() - 1);
            match versions.get(at) {
                None => absent,
                Some(data) => json!({"data": {"data": data}}).to_string().into_response(),
            }
        }
        ("secret", "LIST", "metadata") => {
            let keys: BTreeSet<String> = secrets
                .keys()
                .filter_map(|name| {
                    let rest = name.strip_prefix(path.as_str())?;
                    let (first, _) = rest
                        .split_once('/')
                        .map_or((rest, ""), |(first, more)| (&rest[..=first.len()], more));
                    Some(first.to_owned())
                })
                .collect();
            if keys.is_empty() {
                return absent;
            }
            json!({"data": {"keys": keys}}).to_string().into_response()
        }
        _ => absent,
    }
}

async fn start() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("is bound");
    let router = Router::new().route("/v1/{engine}/{kind}/{*path}", axum::routing::any(answer));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.expect("serves") });
    // It ends with the runtime of the test.
    std::mem::forget(server);
    format!("http://{address}")
}

async fn connect(properties: &[(&str, &str)]) -> Result<std::sync::Arc<dyn Store>, Error> {
    // As the sidecar does when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let name = "secretstores.hashicorp.vault";
    let found = crate::registry()
        .secrets
        .find(name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("vault", properties.iter().copied());
    (found.constructor)(metadata, Context::default()).await
}

#[tokio::test]
async fn secrets_below_the_prefix_are_read() {
    let address = start().await;
    let base = [("vaultAddr", address.as_str()), ("vaultToken", TOKEN)];
    let store = connect(&base).await.expect("connects");
    let wanted: [(&str, &[(&str, &str)]); 2] = [
        ("db", &[("user", "u"), ("password", "p")]),
        ("deep/er/key", &[("key", "v")]),
    ];
    outrider_conformance::secrets::run(&*store, &wanted).await;

    let mut request = GetRequest::new("db");
    request.metadata = Pairs::from([("version_id".to_owned(), "1".to_owned())]);
    let old = store.get(&request).await.expect("there is a first version");
    assert_eq!(old["user"], "old");
    let error = store
        .get(&GetRequest::new("none"))
        .await
        .expect_err("is absent");
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        "getSecret none failed secret key or version not exist"
    );
}

#[tokio::test]
async fn the_token_may_be_in_a_file_and_the_prefix_absent() {
    let address = start().await;
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), format!("{TOKEN}\n")).expect("write");
    let path = file.path().to_str().expect("is text");
    let store = connect(&[
        ("vaultAddr", &address),
        ("vaultTokenMountPath", path),
        ("vaultKVUsePrefix", "false"),
        ("vaultValueType", "text"),
    ])
    .await
    .expect("connects");
    let found = store.get(&GetRequest::new("elsewhere")).await.expect("get");
    assert_eq!(found["elsewhere"], r#"{"key":"w"}"#);

    let wrong = [("vaultAddr", address.as_str()), ("vaultToken", "wrong")];
    let store = connect(&wrong).await.expect("asks nothing yet");
    let error = store
        .get(&GetRequest::new("db"))
        .await
        .expect_err("is denied");
    assert_eq!(error.kind(), Kind::Denied);
}

#[tokio::test]
async fn a_store_that_cannot_work_is_refused() {
    for (properties, error) in [
        (vec![], "token mount path and token not set"),
        (
            vec![("vaultToken", "a"), ("vaultTokenMountPath", "b")],
            "token mount path and token both set",
        ),
        (
            vec![("vaultToken", "a"), ("vaultValueType", "list")],
            "vault init error, invalid value type list, accepted values are map or text",
        ),
        (
            vec![("vaultToken", "a"), ("caPem", "nothing")],
            "couldn't create client using config: couldn't read PEM",
        ),
    ] {
        let refused = connect(&properties).await.err().expect(error);
        assert_eq!(refused.to_string(), error);
    }
}
