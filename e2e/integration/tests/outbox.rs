use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::post;
use http::StatusCode;
use outrider_harness::{Builder, Daprd, HttpApp, wait};
use outrider_proto::common::v1::StateItem;
use outrider_proto::runtime::v1::{ExecuteStateTransactionRequest, TransactionalStateOperation};
use serde_json::{Value, json};

fn store(name: &str, topic: &str, more: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: state.in-memory\n  version: v1\n  metadata:\n  - {{name: outboxPublishPubsub, value: bus}}\n  - {{name: outboxPublishTopic, value: {topic}}}\n{more}"
    )
}

fn subscription(topic: &str) -> String {
    format!(
        "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {{name: {topic}}}\nspec: {{pubsubname: bus, topic: {topic}, routes: {{default: /{topic}}}}}\n"
    )
}

async fn app() -> Result<HttpApp> {
    let take = || post(async || StatusCode::OK);
    let router = Router::new().route("/orders", take());
    HttpApp::start(router.route("/bills", take())).await
}

fn with_outbox(app: &HttpApp) -> Builder {
    Daprd::builder()
        .app(app)
        .component("bus", "pubsub.in-memory")
        .resource(&store("store", "orders", ""))
        .resource(&subscription("orders"))
}

/// The events that came, once there are as many.
async fn events(app: &HttpApp, count: usize) -> Result<Vec<Value>> {
    let seen = wait::until("the events are delivered", || async {
        let seen = app.seen();
        let seen: Vec<_> = seen
            .into_iter()
            .filter(|seen| ["/orders", "/bills"].contains(&seen.target.as_str()))
            .collect();
        (seen.len() >= count).then_some(seen)
    })
    .await?;
    let read = seen
        .iter()
        .map(|seen| serde_json::from_slice(&seen.body).context("no JSON"));
    let events: Vec<Value> = read.collect::<Result<_>>()?;
    assert_eq!(events.len(), count);
    Ok(events)
}

fn upsert(key: &str, value: Value, metadata: Value) -> Value {
    json!({"operation": "upsert", "request": {"key": key, "value": value, "metadata": metadata}})
}

async fn transact(daprd: &Daprd, store: &str, operations: Value) -> Result<()> {
    let path = format!("/v1.0/state/{store}/transaction");
    let done = daprd
        .http()
        .post(&path, &json!({"operations": operations}))
        .await?;
    assert_eq!(done.status, 204, "{}", done.text());
    Ok(())
}

#[tokio::test]
async fn what_a_transaction_writes_is_published_once_and_its_projection_in_its_place() -> Result<()>
{
    let app = app().await?;
    let daprd = with_outbox(&app).start().await?;
    let is_json = json!({"datacontenttype": "application/json", "region": "eu"});
    let projection = json!({"outbox.projection": "true"});
    let operations = json!([
        upsert("a", json!({"n": 1}), is_json),
        upsert("b", json!("saved"), json!({})),
        upsert("b", json!("first"), projection.clone()),
        upsert("b", json!("published"), projection),
        {"operation": "delete", "request": {"key": "c"}},
    ]);
    transact(&daprd, "store", operations).await?;
    let events = events(&app, 2).await?;
    for (event, data, content_type) in [
        (&events[0], json!({"n": 1}), "application/json"),
        (&events[1], json!("published"), "text/plain"),
    ] {
        assert_eq!(
            (&event["data"], &event["datacontenttype"]),
            (&data, &json!(content_type))
        );
        assert_eq!(
            (&event["topic"], &event["pubsubname"], &event["source"]),
            (&json!("orders"), &json!("bus"), &json!("app"))
        );
        let id = event["id"].as_str().context("no id")?;
        assert!(id.starts_with("outbox-"), "{id}");
    }
    assert_eq!(events[0]["region"], "eu");
    let saved = daprd.http().get("/v1.0/state/store/b").await?;
    assert_eq!(saved.text(), "\"saved\"");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        app.seen().iter().filter(|s| s.target == "/orders").count(),
        2
    );
    Ok(())
}

#[tokio::test]
async fn each_store_publishes_to_its_topic_over_grpc_too() -> Result<()> {
    let app = app().await?;
    let daprd = with_outbox(&app)
        .resource(&store("other", "bills", ""))
        .resource(&subscription("bills"))
        .start()
        .await?;
    let mut grpc = daprd.grpc().await?;
    for (store_name, value) in [("store", "1"), ("other", "2")] {
        grpc.execute_state_transaction(ExecuteStateTransactionRequest {
            store_name: store_name.to_owned(),
            operations: vec![TransactionalStateOperation {
                operation_type: "upsert".to_owned(),
                request: Some(StateItem {
                    key: "k".to_owned(),
                    value: value.into(),
                    ..Default::default()
                }),
            }],
            ..Default::default()
        })
        .await?;
    }
    let mut events: Vec<_> = events(&app, 2)
        .await?
        .iter()
        .map(|event| format!("{} {}", event["topic"], event["data"]))
        .collect();
    events.sort();
    assert_eq!(events, ["\"bills\" \"2\"", "\"orders\" \"1\""]);
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_fails_publishes_nothing() -> Result<()> {
    let app = app().await?;
    let daprd = with_outbox(&app).start().await?;
    let refused = json!({"operations": [{
        "operation": "upsert",
        "request": {"key": "a", "value": 1, "etag": "7"},
    }]});
    let path = "/v1.0/state/store/transaction";
    let refused = daprd.http().post(path, &refused).await?;
    assert_eq!(
        (refused.status, &*refused.error()?.0),
        (500, "ERR_STATE_TRANSACTION")
    );
    daprd.line("outbox state not found").await?;
    assert!(app.seen().iter().all(|seen| seen.target != "/orders"));
    Ok(())
}

#[tokio::test]
async fn without_its_broker_the_transaction_does_not_happen() -> Result<()> {
    let daprd = Daprd::builder()
        .resource(&store(
            "store",
            "orders",
            "  - {name: outboxPubsub, value: gone}\n",
        ))
        .start()
        .await?;
    let path = "/v1.0/state/store/transaction";
    let operations = json!({"operations": [upsert("a", json!(1), json!({}))]});
    let refused = daprd.http().post(path, &operations).await?;
    let expected = (
        "ERR_PUBLISH_OUTBOX".to_owned(),
        "error while publishing outbox message: pubsub 'gone' not found".to_owned(),
    );
    assert_eq!((refused.status, refused.error()?), (500, expected));
    assert_eq!(daprd.http().get("/v1.0/state/store/a").await?.status, 204);
    Ok(())
}

#[tokio::test]
async fn an_event_of_an_encrypted_store_has_what_was_saved() -> Result<()> {
    let app = app().await?;
    let key = "  - {name: primaryEncryptionKey, secretKeyRef: {name: KEY, key: KEY}}\nauth: {secretStore: env}\n";
    let daprd = Daprd::builder()
        .app(&app)
        .component("bus", "pubsub.in-memory")
        .component("env", "secretstores.local.env")
        .env("KEY", "000102030405060708090a0b0c0d0e0f")
        .resource(&store("store", "orders", key))
        .resource(&subscription("orders"))
        .start()
        .await?;
    transact(
        &daprd,
        "store",
        json!([upsert("a", json!({"n": 1}), json!({}))]),
    )
    .await?;
    assert_eq!(events(&app, 1).await?[0]["data"], "{\"n\":1}");
    assert_eq!(
        daprd.http().get("/v1.0/state/store/a").await?.text(),
        "{\"n\":1}"
    );
    Ok(())
}
