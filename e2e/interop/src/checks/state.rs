//! The first saves, the second reads, changes with the first one's ETag, and lists.

use anyhow::{Context as _, Result, ensure};
use outrider_conformance::server;
use outrider_harness::{Daprd, Redis};
use serde_json::json;

use crate::programs::Side;
use crate::report::Report;

/// Two sidecars of one application on one store.
async fn shared(first: &Side, second: &Side, store: &str) -> Result<()> {
    let sidecar = async |side: &Side| side.sidecar("shop").resource(store).start().await;
    let (first, second) = (sidecar(first).await?, sidecar(second).await?);
    let value = json!({"text": "ä", "number": 1.5, "list": [1, null]});
    saved(
        &first,
        json!([{"key": "k", "value": value}, {"key": "gone", "value": 1}]),
    )
    .await?;
    let read = second.http().get("/v1.0/state/store/k").await?;
    ensure!(read.status == 200, "{}: {}", read.status, read.text());
    ensure!(read.json()? == value, "{}", read.text());
    let etag = read.header("etag").context("no ETag")?.to_owned();
    let again = |etag: &str| json!([{"key": "k", "value": 2, "etag": etag, "options": {"concurrency": "first-write"}}]);
    saved(&second, again(&etag)).await?;
    let late = first
        .http()
        .post("/v1.0/state/store", &again(&etag))
        .await?;
    ensure!(
        late.status == 409,
        "an old ETag is answered with {}",
        late.status
    );
    let operations = json!({"operations": [
        {"operation": "delete", "request": {"key": "gone"}},
        {"operation": "upsert", "request": {"key": "more", "value": "x"}},
    ]});
    let done = second
        .http()
        .post("/v1.0/state/store/transaction", &operations)
        .await?;
    ensure!(done.status == 204, "{}: {}", done.status, done.text());
    let keys = json!({"keys": ["k", "gone", "more"]});
    let bulk = first.http().post("/v1.0/state/store/bulk", &keys).await?;
    let bulk = bulk.json()?;
    let of = |key: &str| {
        bulk.as_array()
            .into_iter()
            .flatten()
            .find(|item| item["key"] == key)
            .cloned()
    };
    let data = |key: &str| of(key).map(|item| item["data"].clone()).unwrap_or_default();
    ensure!(
        data("k") == 2 && data("more") == "x" && data("gone").is_null(),
        "{bulk}"
    );
    Ok(())
}

async fn saved(sidecar: &Daprd, items: serde_json::Value) -> Result<()> {
    let answer = sidecar.http().post("/v1.0/state/store", &items).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(())
}

fn component(kind: &str, version: &str, setting: &str, value: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: store}}\nspec: {{type: {kind}, version: {version}, metadata: [{{name: {setting}, value: '{value}'}}]}}\n"
    )
}

async fn on_redis(first: &Side, second: &Side) -> Result<()> {
    let redis = Redis::start().await?.context("redis-server is needed")?;
    shared(first, second, &redis.component("store", "state.redis", "")).await
}

async fn on_sqlite(first: &Side, second: &Side) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state.db").display().to_string();
    shared(
        first,
        second,
        &component("state.sqlite", "v1", "connectionString", &path),
    )
    .await
}

async fn on_postgresql(first: &Side, second: &Side, version: &str) -> Result<()> {
    let server = server::postgresql().await.context("PostgreSQL is needed")?;
    let address = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=disable",
        server.port
    );
    shared(
        first,
        second,
        &component("state.postgresql", version, "connectionString", &address),
    )
    .await
}

pub async fn all(report: &mut Report, first: &Side, second: &Side) {
    report
        .check("state in one Redis", first, second, on_redis(first, second))
        .await;
    report
        .check(
            "state in one SQLite file",
            first,
            second,
            on_sqlite(first, second),
        )
        .await;
    for version in ["v1", "v2"] {
        let what = format!("state in one PostgreSQL, {version}");
        report
            .check(&what, first, second, on_postgresql(first, second, version))
            .await;
    }
}
