//! Stores of keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use outrider_components::crypto::{Crypto, With};
use outrider_components::{Context, Error, Metadata};
use outrider_conformance::crypto::{Names, run};
use outrider_conformance::eventually;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

// Keys that were made for these tests.
const RSA_PEM: &str = include_str!("keys/rsa.pem");
const EC_PEM: &str = include_str!("keys/ec.pem");
const ED25519_PEM: &str = include_str!("keys/ed25519.pem");
const JWKS: &str = include_str!("keys/jwks.json");
const SYMMETRIC: &[u8] = &[5; 32];

const NAMES: Names = Names {
    symmetric: "symmetric",
    rsa: "rsa.pem",
    ec: "ec.pem",
    ed25519: "ed25519.pem",
};

const IN_SET: Names = Names {
    symmetric: "symmetric",
    rsa: "rsa",
    ec: "ec",
    ed25519: "ed25519",
};

async fn connect(type_name: &str, properties: &[(&str, &str)]) -> Result<Arc<dyn Crypto>, Error> {
    assert!(
        crate::TYPES.contains(&type_name),
        "add {type_name} to TYPES"
    );
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let found = crate::registry()
        .crypto
        .find(type_name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("keys", properties.iter().copied());
    (found.constructor)(metadata, Context::default()).await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

#[tokio::test]
async fn localstorage() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).expect("is written");
    };
    for (name, bytes) in [
        ("rsa.pem", RSA_PEM.as_bytes()),
        ("ec.pem", EC_PEM.as_bytes()),
        ("ed25519.pem", ED25519_PEM.as_bytes()),
        ("symmetric", SYMMETRIC),
        ("empty", b""),
        ("wrong.pem", b"-----BEGIN"),
        ("wrong.json", b"{}"),
    ] {
        write(name, bytes);
    }
    let set: Value = serde_json::from_str(JWKS).expect("is JSON");
    write("key.JSON", set["keys"][0].to_string().as_bytes());
    let path = [("path", text(folder.path()))];
    let store = connect("crypto.dapr.localstorage", &path).await;
    let store = store.expect("connects");
    run(&*store, &NAMES).await;
    assert!(store.public_key("key.JSON").await.is_ok());
    let outside = folder.path().join("rsa.pem");
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).expect("a link");
    for (name, wanted) in [
        ("absent", "failed to load key 'absent': no such file"),
        ("../x", "invalid key path: cannot contain '..'"),
        (".", "failed to load key '.'"),
        ("link", "failed to load key 'link': no such file"),
        ("a\0b", "invalid key path"),
        (text(&outside), "failed to load key"),
        ("empty", "failed to parse key from secret: key is empty"),
        (
            "wrong.pem",
            "failed to parse key from secret: the key is not valid PEM",
        ),
        (
            "wrong.json",
            "failed to parse key from secret: the JWK is not valid",
        ),
    ] {
        let error = store.public_key(name).await.expect_err(name);
        assert!(error.to_string().starts_with(wanted), "{name:?}: {error}");
    }
    for (path, wanted) in [
        (String::new(), "metadata property 'path' is required"),
        (text(&outside).to_owned(), "is not a directory"),
        (
            "/no/such/folder".to_owned(),
            "could not stat path '/no/such/folder'",
        ),
    ] {
        let error = connect("crypto.dapr.localstorage", &[("path", &path)])
            .await
            .err();
        let error = error.expect("does not connect").to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn jwks_as_a_value() {
    let base64 = include_str!("keys/jwks.base64");
    for value in [JWKS, base64] {
        let store = connect("crypto.dapr.jwks", &[("jwks", value)]).await;
        run(&*store.expect("connects"), &IN_SET).await;
    }
    for (value, wanted) in [
        ("", "metadata property 'jwks' is required"),
        ("{", "the JWK is not valid"),
        ("/no/such/file", "the JWKS cannot be read from its file"),
        ("http://127.0.0.1:1/", "the JWKS cannot be had from its URL"),
    ] {
        let error = connect("crypto.dapr.jwks", &[("jwks", value)]).await.err();
        let error = error.expect("does not connect").to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[tokio::test]
async fn keys_are_used_for_what_they_are_for() {
    let key = |more: Value| {
        let mut key = json!({"kty": "oct", "kid": "k", "k": "BQUFBQUFBQUFBQUFBQUFBQ"});
        for (name, value) in more.as_object().expect("an object") {
            key[name] = value.clone();
        }
        json!({"keys": [key, {"kty": "odd"}]}).to_string()
    };
    let nonce = [0; 12];
    let with = With {
        key: "k",
        algorithm: "A128GCM",
        nonce: &nonce,
        associated_data: &[],
    };
    for (more, wanted) in [
        (json!({}), None),
        (
            json!({"use": "enc", "key_ops": ["encrypt"], "alg": "A128GCM"}),
            None,
        ),
        (
            json!({"use": "sig"}),
            Some("key cannot perform the 'encrypt' operation"),
        ),
        (
            json!({"key_ops": ["decrypt"]}),
            Some("key cannot perform the 'encrypt' operation"),
        ),
        (
            json!({"alg": "A128KW"}),
            Some("key cannot be used with algorithm 'A128GCM'"),
        ),
    ] {
        let set = key(more);
        let store = connect("crypto.dapr.jwks", &[("jwks", &set)]).await;
        let store = store.expect("connects");
        let refused = store.encrypt(&with, b"x").await.err();
        assert_eq!(
            refused.map(|error| error.to_string()).as_deref(),
            wanted,
            "{set}"
        );
    }
}

fn set_of(name: &str) -> String {
    json!({"keys": [{"kty": "oct", "kid": name, "k": "BQUFBQUFBQUFBQUFBQUFBQ"}]}).to_string()
}

async fn has(store: &dyn Crypto, name: &str) -> bool {
    let with = With {
        key: name,
        algorithm: "A128KW",
        ..With::default()
    };
    store.wrap_key(&with, &[1; 16]).await.is_ok()
}

#[tokio::test]
async fn jwks_in_a_file_that_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set_of("first")).expect("is written");
    let store = connect("crypto.dapr.jwks", &[("jwks", text(&path))]).await;
    let store = store.expect("connects");
    assert!(has(&*store, "first").await && !has(&*store, "second!").await);
    for broken in [b"{".to_vec(), vec![b' '; (1 << 20) + 1]] {
        std::fs::write(&path, broken).expect("is written");
        assert!(has(&*store, "first").await, "what was read before stays");
    }
    std::fs::write(&path, set_of("second!")).expect("is written");
    assert!(has(&*store, "second!").await && !has(&*store, "first").await);
    std::fs::remove_file(&path).expect("is removed");
    assert!(has(&*store, "second!").await, "what was read before stays");
}

#[tokio::test]
async fn jwks_of_a_url_are_read_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("is bound"));
    let served = Arc::new(std::sync::Mutex::new(set_of("first")));
    let serving = served.clone();
    let answer = move || {
        let set = serving.lock().expect("no panic").clone();
        async move { set }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = axum::serve(listener, Router::new().fallback(answer)).await;
    });
    let properties = [("jwks", &*url), ("minRefreshInterval", "1s")];
    let store = connect("crypto.dapr.jwks", &properties).await;
    let store = store.expect("connects");
    assert!(has(&*store, "first").await);
    "broken".clone_into(&mut served.lock().expect("no panic"));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(has(&*store, "first").await, "what was read before stays");
    *served.lock().expect("no panic") = set_of("second");
    eventually("the new key is there", Duration::from_secs(10), || {
        has(&*store, "second")
    })
    .await;
    *served.lock().expect("no panic") = " ".repeat((1 << 20) + 1);
    let error = connect("crypto.dapr.jwks", &[("jwks", &url)]).await.err();
    let wanted = "the JWKS has more than 1048576 bytes";
    assert_eq!(error.expect("too long").to_string(), wanted);
}
