use anyhow::{Context, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use outrider_harness::{Daprd, HttpApp, wait};
use serde_json::json;

#[tokio::test]
async fn an_event_reaches_its_subscriber() -> Result<()> {
    let subscriptions = json!([{"pubsubname": "bus", "topic": "orders", "route": "/orders"}]);
    let router = Router::new()
        .route("/dapr/subscribe", get(async move || Json(subscriptions)))
        .route("/orders", post(async || "{}"));
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("bus", "pubsub.in-memory")
        .start()
        .await?;
    let published = daprd
        .http()
        .post("/v1.0/publish/bus/orders", &json!({"id": 7}))
        .await?;
    assert_eq!(published.status, 204);
    let seen = wait::until("the event is delivered", || async { app.last() }).await?;
    let event: serde_json::Value = serde_json::from_slice(&seen.body).context("no JSON")?;
    assert_eq!(
        (&event["topic"], &event["pubsubname"]),
        (&json!("orders"), &json!("bus"))
    );
    assert_eq!(
        (&event["data"], &event["source"]),
        (&json!({"id": 7}), &json!("app"))
    );

    let elsewhere = daprd
        .http()
        .post("/v1.0/publish/nowhere/orders", &json!(1))
        .await?;
    let expected = (
        "ERR_PUBSUB_NOT_FOUND".to_owned(),
        "pubsub nowhere is not found".to_owned(),
    );
    assert_eq!((elsewhere.status, elsewhere.error()?), (404, expected));
    Ok(())
}
