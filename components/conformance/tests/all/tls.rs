//! Components over TLS: they trust the certificates that they are given, and no
//! others.

use outrider_components::{Error, Metadata};
use outrider_conformance::bindings::passes;
use outrider_conformance::server::{self, Identity};
use outrider_conformance::state;

fn identity() -> Identity {
    // As the sidecar does when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let names = ["localhost", "127.0.0.1"].map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Identity {
        certificate: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
}

/// A certificate in a file, as long as that is there.
fn file(pem: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), pem).expect("write");
    let path = file.path().display().to_string();
    (file, path)
}

/// Why a state store does not connect.
async fn refusal(type_name: &str, version: &str, properties: &[(&str, &str)]) -> Error {
    let found = crate::registry().state.find(type_name, version);
    let found = found.expect("is registered");
    let metadata = Metadata::new("store", properties.iter().copied());
    let connecting = (found.constructor)(metadata, crate::context("app")).await;
    connecting.err().expect("the certificate is not trusted")
}

#[tokio::test]
async fn postgresql() {
    let own = identity();
    let Some(server) = server::postgresql_with(Some(&own)).await else {
        return;
    };
    let (_own, trusted) = file(&own.certificate);
    let (_other, untrusted) = file(&identity().certificate);
    let port = server.port;
    let string =
        format!("host=localhost port={port} user=postgres dbname=postgres sslmode=verify-full");
    let properties = |root: String| [("connectionString", string.clone()), ("sslRootCert", root)];
    let wrong = properties(untrusted);
    let wrong = wrong
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let error = refusal("state.postgresql", "v2", &wrong).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    let right = properties(trusted);
    let right = right
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let store = crate::state_version("state.postgresql", "v2", &right).await;
    state::run(&*store).await;
    let binding = crate::bindings::connect("bindings.postgresql", &right).await;
    let sql = [(
        "sql",
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    )];
    let binding = binding.expect("connects");
    let output = outrider_conformance::bindings::output(&binding);
    let answer = outrider_conformance::bindings::invoke(output, "query", "", &sql).await;
    assert_eq!(answer.expect("query").expect("an answer").data, "[[true]]");
}

#[tokio::test]
async fn mysql() {
    let own = identity();
    let Some(server) = server::mariadb_with(Some(&own)).await else {
        return;
    };
    let (_own, trusted) = file(&own.certificate);
    let (_other, untrusted) = file(&identity().certificate);
    let string = format!("root@tcp(localhost:{})/?tls=custom", server.port);
    let properties = [("connectionString", &*string), ("pemPath", &*untrusted)];
    let error = refusal("state.mysql", "v1", &properties).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    let properties = [("connectionString", &*string), ("pemPath", &*trusted)];
    let store = crate::state("state.mysql", &properties).await;
    state::run(&*store).await;
    let properties = [("url", &*string), ("pemPath", &*trusted)];
    let binding = crate::bindings::connect("bindings.mysql", &properties).await;
    let sql = [("sql", "SHOW STATUS LIKE 'Ssl_cipher'")];
    let binding = binding.expect("connects");
    let output = outrider_conformance::bindings::output(&binding);
    let answer = outrider_conformance::bindings::invoke(output, "query", "", &sql).await;
    let data = answer.expect("query").expect("an answer").data;
    let text = String::from_utf8_lossy(&data).into_owned();
    assert!(text.contains("TLS_") || text.contains("ECDHE"), "{text}");
}

#[tokio::test]
async fn etcd() {
    let own = identity();
    let Some(server) = server::etcd_with(Some(&own)).await else {
        return;
    };
    let address = format!("localhost:{}", server.port);
    let other = identity();
    let properties = |authority| {
        [
            ("endpoints", address.as_str()),
            ("tlsEnable", "true"),
            ("ca", authority),
            ("cert", own.certificate.as_str()),
            ("key", own.key.as_str()),
        ]
    };
    refusal("state.etcd", "v2", &properties(&other.certificate)).await;
    let store = crate::state_version("state.etcd", "v2", &properties(&own.certificate)).await;
    state::run(&*store).await;
}

#[tokio::test]
async fn mqtt3() {
    let own = identity();
    let Some(server) = server::mosquitto_with(Some(&own)).await else {
        return;
    };
    let url = format!("mqtts://localhost:{}", server.port);
    let other = identity();
    let properties = |authority| {
        [
            ("url", url.as_str()),
            ("topic", "events"),
            ("consumerID", "app"),
            ("backOffMaxRetries", "-1"),
            ("caCert", authority),
        ]
    };
    let binding = properties(&other.certificate);
    let binding = crate::bindings::connect("bindings.mqtt3", &binding).await;
    let binding = binding.expect("connects later");
    let output = outrider_conformance::bindings::output(&binding);
    let refused = outrider_conformance::bindings::invoke(output, "create", "x", &[]).await;
    refused.expect_err("the certificate is not trusted");
    let binding = properties(&own.certificate);
    let binding = crate::bindings::connect("bindings.mqtt3", &binding).await;
    passes(&binding.expect("connects"), &[]).await;
}

#[tokio::test]
async fn rabbitmq() {
    let own = identity();
    let Some(server) = server::rabbitmq_with(Some(&own)).await else {
        return;
    };
    let uri = format!("amqps://guest:guest@localhost:{}", server.port);
    let other = identity();
    let properties = |authority| {
        [
            ("host", uri.as_str()),
            ("queueName", "events"),
            ("durable", "true"),
            ("caCert", authority),
        ]
    };
    let binding = properties(&other.certificate);
    let refused = crate::bindings::connect("bindings.rabbitmq", &binding).await;
    refused.err().expect("the certificate is not trusted");
    let binding = properties(&own.certificate);
    let binding = crate::bindings::connect("bindings.rabbitmq", &binding).await;
    passes(&binding.expect("connects"), &[]).await;
}

const NATS: &str = "OUTRIDER_CONFORMANCE_NATS";

/// It has no field for certificates, and trusts those of the system, which a
/// variable of a process names.
#[tokio::test]
async fn jetstream() {
    let own = identity();
    let Some(server) = server::nats_with(Some(&own)).await else {
        return;
    };
    for (certificate, connects) in [(own.certificate, true), (identity().certificate, false)] {
        let (_file, trusted) = file(&certificate);
        let child = tokio::process::Command::new(std::env::current_exe().expect("is a file"))
            .args(["tls::jetstream_in_a_process", "--exact", "--ignored"])
            .env(NATS, format!("tls://localhost:{}", server.port))
            .env("SSL_CERT_FILE", trusted)
            .kill_on_drop(true)
            .output()
            .await
            .expect("this program starts");
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        assert_eq!(child.status.success(), connects, "{text}");
        assert!(connects || text.contains("certificate"), "{text}");
    }
}

#[tokio::test]
#[ignore = "it is started by another test"]
async fn jetstream_in_a_process() {
    let url = std::env::var(NATS).expect("is started by another test");
    let broker = crate::broker("pubsub.jetstream", "app", &[("natsURL", &url)]).await;
    broker.close().await.expect("close");
}
