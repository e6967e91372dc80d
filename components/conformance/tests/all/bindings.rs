use std::sync::Arc;

use outrider_components::bindings::Binding;
use outrider_components::{Context, Error, Metadata};
use outrider_conformance::bindings::{Keeps, has_directions, invoke, keeps, output, reads};
use outrider_conformance::server;

pub async fn connect(type_name: &str, properties: &[(&str, &str)]) -> Result<Arc<Binding>, Error> {
    assert!(
        crate::TYPES.contains(&type_name),
        "add {type_name} to TYPES"
    );
    let found = crate::registry()
        .bindings
        .find(type_name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("binding", properties.iter().copied());
    (found.constructor)(metadata, Context::default()).await
}

#[tokio::test]
async fn cron() {
    let binding = connect("bindings.cron", &[("schedule", "@every 50ms")]).await;
    reads(&binding.expect("connects")).await;
    has_directions((true, false), |direction| async move {
        let properties = [("schedule", "@daily"), ("direction", direction)];
        connect("bindings.cron", &properties).await
    })
    .await;
}

#[tokio::test]
async fn localstorage() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    let root = root.to_str().expect("the path is text").to_owned();
    let binding = connect("bindings.localstorage", &[("rootPath", &root)]).await;
    let promises = Keeps {
        key: "fileName",
        absent_is_an_error: true,
        expires: false,
    };
    keeps(&binding.expect("connects"), &promises).await;
    has_directions((false, true), |direction| {
        let root = root.clone();
        async move {
            let properties = [("rootPath", &*root), ("direction", direction)];
            connect("bindings.localstorage", &properties).await
        }
    })
    .await;
}

const REDIS: Keeps = Keeps {
    key: "key",
    absent_is_an_error: false,
    expires: true,
};

#[tokio::test]
async fn redis() {
    let Some(server) = server::redis(&[]).await else {
        return;
    };
    let host = server.address();
    let binding = connect("bindings.redis", &[("redisHost", &host)]).await;
    let binding = binding.expect("connects");
    let redis = output(&binding);
    let counter = [("key", "counter"), ("ttl", "1h")];
    invoke(redis, "increment", "", &counter)
        .await
        .expect("increment");
    let left = server.redis_cli(&["TTL", "counter"]).await;
    let left: u32 = left.trim().parse().expect("seconds");
    assert!((3590..=3600).contains(&left), "{left}");
    let taken = invoke(redis, "get", "", &[("key", "counter"), ("delete", "true")]).await;
    assert_eq!(taken.expect("get").expect("an answer").data, "1");
    let gone = invoke(redis, "get", "", &counter).await.expect("get");
    assert!(gone.expect("an answer").data.is_empty());
    let unnamed = invoke(redis, "get", "", &[]).await.expect_err("no key");
    assert_eq!(
        unnamed.to_string(),
        "redis binding: missing key in request metadata"
    );
    keeps(&binding, &REDIS).await;
}

#[tokio::test]
async fn redis_in_a_cluster() {
    let Some([one, _two]) = server::redis_cluster().await else {
        return;
    };
    let properties = [("redisHost", &*one.address()), ("redisType", "cluster")];
    let binding = connect("bindings.redis", &properties).await;
    keeps(&binding.expect("connects"), &REDIS).await;
}

#[tokio::test]
async fn redis_that_is_not_there() {
    let properties = [("redisHost", "127.0.0.1:1"), ("redisMaxRetries", "-1")];
    let error = connect("bindings.redis", &properties).await.err();
    let text = error.expect("nothing listens").to_string();
    let start = "redis binding: error connecting to redis at 127.0.0.1:1: ";
    assert!(text.starts_with(start), "{text}");
}
