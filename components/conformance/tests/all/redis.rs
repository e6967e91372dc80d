use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrider_components::pubsub::Broker;
use outrider_components::state::{Consistency, GetRequest, SetRequest, Value};
use outrider_components::{Kind, Metadata};
use outrider_conformance::pubsub::{Connect, Promises};
use outrider_conformance::server::{self, Server};

#[tokio::test]
async fn state() {
    let Some(server) = server::redis(&["--requirepass", "secret"]).await else {
        return;
    };
    let properties = [
        ("redisHost", &*server.address()),
        ("redisPassword", "secret"),
    ];
    let store = crate::state("state.redis", &properties).await;
    outrider_conformance::state::run(&*store).await;
}

#[tokio::test]
async fn state_in_a_cluster() {
    let Some([one, _two]) = server::redis_cluster().await else {
        return;
    };
    let properties = [("redisHost", &*one.address()), ("redisType", "cluster")];
    let store = crate::state("state.redis", &properties).await;
    outrider_conformance::state::run(&*store).await;
}

/// Writes go on after the sentinel has made the replica the master.
#[tokio::test]
async fn state_behind_a_sentinel() {
    let Some(master) = server::redis(&[]).await else {
        return;
    };
    let replica = server::redis(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let replica = replica.expect("the first one started");
    replica
        .redis_says(&["INFO", "replication"], "master_link_status:up")
        .await;
    let sentinel = server::sentinel(&master)
        .await
        .expect("the first one started");
    sentinel
        .redis_says(&["SENTINEL", "MASTER", "main"], "num-slaves\n1\n")
        .await;

    let address = sentinel.address();
    let properties = [
        ("redisHost", &*address),
        ("failover", "true"),
        ("sentinelMasterName", "main"),
        ("redisMaxRetries", "5"),
    ];
    let suite = crate::state("state.redis", &properties).await;
    outrider_conformance::state::run(&*suite).await;

    let store = crate::state("state.redis", &properties).await;
    let mut request = SetRequest::new("k", Value::Json(Bytes::from_static(b"1")));
    request.consistency = Consistency::Strong;
    store.set(&request).await.expect("set");
    assert_eq!(
        sentinel
            .redis_cli(&["SENTINEL", "FAILOVER", "main"])
            .await
            .trim(),
        "OK"
    );
    replica
        .redis_says(&["INFO", "replication"], "role:master")
        .await;
    master
        .redis_says(&["INFO", "replication"], "role:slave")
        .await;
    request.value = Value::Json(Bytes::from_static(b"2"));
    outrider_conformance::eventually("writes go on", Duration::from_secs(20), || async {
        store.set(&request).await.is_ok()
    })
    .await;
    assert_eq!(replica.redis_cli(&["HGET", "k", "data"]).await.trim(), "2");
    let item = store
        .get(&GetRequest::new("k"))
        .await
        .expect("get")
        .expect("is there");
    assert_eq!(item.value, "2");
}

/// A server that insists on client certificates, with one nobody has heard of.
#[tokio::test]
async fn state_over_tls() {
    // The process that components live in does this when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .and_then(|parameters| parameters.self_signed(&key))
        .expect("a certificate");
    let folder = tempfile::tempdir().expect("folder");
    let [key_file, certificate_file] =
        ["key.pem", "certificate.pem"].map(|name| folder.path().join(name).display().to_string());
    std::fs::write(&key_file, key.serialize_pem()).expect("write");
    std::fs::write(&certificate_file, certificate.pem()).expect("write");
    let port = server::free_port().await.to_string();
    let tls = [
        ["--tls-port", &port],
        ["--tls-cert-file", &certificate_file],
        ["--tls-key-file", &key_file],
        ["--tls-ca-cert-file", &certificate_file],
        ["--tls-auth-clients", "yes"],
    ];
    let Some(_server) = server::redis(tls.as_flattened()).await else {
        return;
    };
    let (key, certificate) = (key.serialize_pem(), certificate.pem());
    let address = format!("localhost:{port}");
    let properties = |insecure| {
        [
            ("redisHost", address.as_str()),
            ("enableTLS", "true"),
            ("insecureSkipTLSVerify", insecure),
            ("clientCert", certificate.as_str()),
            ("clientKey", key.as_str()),
            ("redisMaxRetries", "-1"),
        ]
    };
    let found = crate::registry()
        .state
        .find("state.redis", "v1")
        .expect("is registered");
    let verifying = Metadata::new("store", properties("false"));
    let error = (found.constructor)(verifying, crate::context("app")).await;
    let error = error.err().expect("nobody vouches for the certificate");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("certificate"), "{error}");

    let store = crate::state("state.redis", &properties("true")).await;
    outrider_conformance::state::run(&*store).await;
}

struct Streams {
    address: String,
    kind: &'static str,
}

#[async_trait::async_trait]
impl Connect for Streams {
    async fn connect(&self, app: &str) -> Arc<dyn Broker> {
        let properties = [
            ("redisHost", self.address.as_str()),
            ("redisType", self.kind),
            ("processingTimeout", "500ms"),
            ("redeliverInterval", "200"),
            ("queueDepth", "20"),
        ];
        crate::broker("pubsub.redis", app, &properties).await
    }
}

async fn pubsub_on(server: &Server, kind: &'static str) {
    let promises = Promises {
        redelivers: true,
        durable: true,
        groups: true,
        ordered: false,
    };
    let connect = Streams {
        address: server.address(),
        kind,
    };
    outrider_conformance::pubsub::run(&connect, promises).await;
}

#[tokio::test]
async fn pubsub() {
    if let Some(server) = server::redis(&[]).await {
        pubsub_on(&server, "node").await;
    }
}

#[tokio::test]
async fn pubsub_in_a_cluster() {
    if let Some([one, _two]) = server::redis_cluster().await {
        pubsub_on(&one, "cluster").await;
    }
}
