use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::configuration::{Request, Store};
use outrider_components::{Kind, Metadata, Pairs};
use outrider_conformance::configuration::{Outside, Promises};
use outrider_conformance::server::{self, Server};

pub async fn connect(type_name: &str, properties: &[(&str, &str)]) -> Arc<dyn Store> {
    assert!(
        crate::TYPES.contains(&type_name),
        "add {type_name} to TYPES"
    );
    let found = crate::registry()
        .configuration
        .find(type_name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("config", properties.iter().copied());
    (found.constructor)(metadata, crate::context("app"))
        .await
        .expect("connects")
}

struct Redis<'a>(&'a Server, &'static [&'static str]);

#[async_trait]
impl Outside for Redis<'_> {
    async fn set(&self, key: &str, value: &str) -> String {
        let version = format!("v{value}");
        let stored = format!("{value}||{version}");
        let set = [self.1, &["SET", key, &stored]].concat();
        assert_eq!(self.0.redis_cli(&set).await.trim(), "OK");
        version
    }

    async fn delete(&self, key: &str) {
        self.0.redis_cli(&[self.1, &["DEL", key]].concat()).await;
    }
}

fn promises() -> Promises {
    Promises {
        tells_deletions: true,
        versions_keys: true,
        tells_current: false,
        metadata: Pairs::new(),
    }
}

#[tokio::test]
async fn redis() {
    let Some(server) = server::redis(&["--requirepass", "secret"]).await else {
        return;
    };
    let properties = [
        ("redisHost", &*server.address()),
        ("redisPassword", "secret"),
        ("redisDB", "3"),
    ];
    let outside = Redis(&server, &["--no-auth-warning", "-a", "secret", "-n", "3"]);
    let store = connect("configuration.redis", &properties).await;
    outrider_conformance::configuration::run(&*store, &outside, &promises()).await;
}

#[tokio::test]
async fn redis_in_a_cluster_does_not_subscribe() {
    let Some([one, _two]) = server::redis_cluster().await else {
        return;
    };
    let properties = [("redisHost", &*one.address()), ("redisType", "cluster")];
    let store = connect("configuration.redis", &properties).await;
    outrider_conformance::configuration::get(&*store, &Redis(&one, &["-c"]), &promises()).await;
    let (_, handler) = counting();
    let error = store.subscribe(&Request::default(), handler).await;
    let error = error.expect_err("is refused");
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[tokio::test]
async fn redis_behind_a_sentinel() {
    let Some(master) = server::redis(&[]).await else {
        return;
    };
    let sentinel = server::sentinel(&master).await;
    let sentinel = sentinel.expect("the first one started");
    let properties = [
        ("redisHost", &*sentinel.address()),
        ("failover", "true"),
        ("sentinelMasterName", "main"),
    ];
    let store = connect("configuration.redis", &properties).await;
    outrider_conformance::configuration::run(&*store, &Redis(&master, &[]), &promises()).await;
    lock("lock.redis", &properties).await;
}

pub type Values = tokio::sync::mpsc::UnboundedReceiver<String>;

pub struct Counting(tokio::sync::mpsc::UnboundedSender<String>);

#[async_trait]
impl outrider_components::configuration::Handler for Counting {
    async fn handle(&self, items: outrider_components::configuration::Items) {
        for item in items.into_values() {
            let _ = self.0.send(item.value);
        }
    }
}

pub fn counting() -> (Values, Arc<Counting>) {
    let (sender, values) = tokio::sync::mpsc::unbounded_channel();
    (values, Arc::new(Counting(sender)))
}

/// What changes while there is no connection arrives after it.
#[tokio::test]
async fn redis_tells_changes_that_were_missed() {
    let Some(server) = server::redis(&[]).await else {
        return;
    };
    let properties = [("redisHost", &*server.address())];
    let store = connect("configuration.redis", &properties).await;
    let (mut values, handler) = counting();
    let request = Request {
        keys: vec!["k".to_owned()],
        ..Request::default()
    };
    let _subscription = store.subscribe(&request, handler).await.expect("subscribe");
    server.redis_cli(&["SET", "k", "before"]).await;
    let next = async |values: &mut Values| {
        let next = tokio::time::timeout(Duration::from_secs(10), values.recv()).await;
        next.expect("in time").expect("is subscribed")
    };
    assert_eq!(next(&mut values).await, "before");
    server
        .redis_cli(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
    server.redis_cli(&["SET", "k", "meanwhile"]).await;
    while next(&mut values).await != "meanwhile" {}
    server.redis_cli(&["SET", "k", "after"]).await;
    while next(&mut values).await != "after" {}
}

/// Thousands of subscriptions take one connection, and one that is slow holds
/// up no other.
#[tokio::test]
async fn redis_serves_many_subscriptions_over_one_connection() {
    struct Never;

    #[async_trait]
    impl outrider_components::configuration::Handler for Never {
        async fn handle(&self, _: outrider_components::configuration::Items) {
            std::future::pending::<()>().await;
        }
    }

    let Some(server) = server::redis(&[]).await else {
        return;
    };
    let properties = [("redisHost", &*server.address())];
    let store = connect("configuration.redis", &properties).await;
    let mut kept = Vec::new();
    let of = |key: String| Request {
        keys: vec![key],
        ..Request::default()
    };
    for number in 0..2000 {
        let request = of(format!("k{}", number % 10));
        kept.push(
            store
                .subscribe(&request, Arc::new(Never))
                .await
                .expect("subscribe"),
        );
    }
    let (mut values, handler) = counting();
    let last = store.subscribe(&of("k1".to_owned()), handler).await;
    let _last = last.expect("subscribe");
    for value in ["one", "two"] {
        server.redis_cli(&["SET", "k1", value]).await;
        let next = tokio::time::timeout(Duration::from_secs(10), values.recv()).await;
        assert_eq!(next.expect("in time").as_deref(), Some(value));
    }
    let clients = server
        .redis_cli(&["CLIENT", "LIST", "TYPE", "pubsub"])
        .await;
    assert_eq!(clients.lines().filter(|line| !line.is_empty()).count(), 1);
    drop(kept);
    server
        .redis_says(&["PUBSUB", "NUMSUB", "__keyspace@0__:k2"], "\n0")
        .await;
}

pub async fn lock(type_name: &str, properties: &[(&str, &str)]) {
    assert!(
        crate::TYPES.contains(&type_name),
        "add {type_name} to TYPES"
    );
    let found = crate::registry()
        .lock
        .find(type_name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("lock", properties.iter().copied());
    let store = (found.constructor)(metadata, crate::context("app")).await;
    outrider_conformance::lock::run(&*store.expect("connects")).await;
}

#[tokio::test]
async fn lock_redis() {
    let Some(server) = server::redis(&[]).await else {
        return;
    };
    lock("lock.redis", &[("redisHost", &server.address())]).await;
}

/// A lock could be lost when a replica takes over.
#[tokio::test]
async fn lock_redis_refuses_clusters_and_replicas() {
    let Some(server) = server::redis(&[]).await else {
        return;
    };
    let replica = server::redis(&["--replicaof", "127.0.0.1", &server.port.to_string()]).await;
    let replica = replica.expect("the first one started");
    replica
        .redis_says(&["INFO", "replication"], "master_link_status:up")
        .await;
    server
        .redis_says(&["INFO", "replication"], "connected_slaves:1")
        .await;
    for (kind, text) in [
        ("node", "replication is not supported"),
        (
            "cluster",
            "this component does not support connecting to Redis Cluster",
        ),
    ] {
        let address = server.address();
        let properties = [("redisHost", &*address), ("redisType", kind)];
        let found = crate::registry().lock.find("lock.redis", "v1");
        let found = found.expect("is registered");
        let metadata = Metadata::new("lock", properties);
        let error = (found.constructor)(metadata, crate::context("app")).await;
        assert_eq!(error.err().expect("is refused").to_string(), text);
    }
}
