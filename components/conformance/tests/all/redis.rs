use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrider_components::pubsub::{Broker, Message, PublishRequest, SubscribeRequest};
use outrider_components::state::{Consistency, GetRequest, SetRequest, Value};
use outrider_components::{Error, Kind, Metadata, Pairs};
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

/// A server that requires client certificates, and has a self-signed one.
#[tokio::test]
async fn state_over_tls() {
    // As the sidecar does when it starts.
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
    let port = server::port::free().to_string();
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
    let error = error.err().expect("the certificate is not trusted");
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
        ..Promises::default()
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

/// Other programs can write and read the same streams.
#[tokio::test]
async fn streams_have_the_documented_form() {
    let Some(server) = server::redis(&[]).await else {
        return;
    };
    let connect = Streams {
        address: server.address(),
        kind: "node",
    };
    let broker = connect.connect("app").await;
    let request = PublishRequest {
        topic: "t".to_owned(),
        data: Bytes::from_static(b"ours"),
        metadata: Pairs::from([
            ("b".to_owned(), "2".to_owned()),
            ("a".to_owned(), "1".to_owned()),
        ]),
        content_type: None,
    };
    broker.publish(&request).await.expect("publish");
    let range = server.redis_cli(&["XRANGE", "t", "-", "+"]).await;
    let fields: Vec<_> = range.lines().skip(1).collect();
    assert_eq!(fields, ["data", "ours", "metadata", r#"{"a":"1","b":"2"}"#]);

    server
        .redis_cli(&[
            "XADD",
            "t",
            "*",
            "data",
            "theirs",
            "metadata",
            r#"{"k":"v"}"#,
        ])
        .await;
    server.redis_cli(&["XADD", "t", "*", "data", "bare"]).await;
    let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |message: Message| {
        let sent = sender.send(message);
        async move { sent.map_err(|error| Error::internal(error.to_string())) }
    };
    let subscribe = SubscribeRequest {
        topic: "t".to_owned(),
        metadata: Pairs::new(),
    };
    let _subscription = broker
        .subscribe(subscribe, Arc::new(handler))
        .await
        .expect("subscribe");
    let mut arrived = Vec::new();
    for _ in 0..3 {
        let message = tokio::time::timeout(Duration::from_secs(10), messages.recv()).await;
        let message = message.expect("in time").expect("subscribed");
        arrived.push((message.data, message.metadata.get("k").cloned()));
    }
    arrived.sort();
    let wanted = [
        ("bare", None),
        ("ours", None),
        ("theirs", Some("v".to_owned())),
    ];
    assert_eq!(
        arrived,
        wanted.map(|(data, value)| (Bytes::from(data), value))
    );
    server.redis_says(&["XPENDING", "t", "app"], "0\n").await;
    let groups = server.redis_cli(&["XINFO", "GROUPS", "t"]).await;
    assert!(
        groups.starts_with("name\napp\nconsumers\n1\npending\n0\n"),
        "{groups}"
    );
}

#[tokio::test]
async fn pubsub_in_a_cluster() {
    if let Some([one, _two]) = server::redis_cluster().await {
        pubsub_on(&one, "cluster").await;
    }
}
