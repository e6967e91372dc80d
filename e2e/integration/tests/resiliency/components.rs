use std::collections::BTreeMap;

use anyhow::Result;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use outrider_harness::{Daprd, HttpApp, wait};
use serde_json::{Value, json};

use super::{Calls, resource};

const RETRIES: &str = "{retries: {quick: {duration: 10ms, maxRetries: 2}}}";

fn subscribe(subscriptions: Value) -> Router {
    Router::new().route("/dapr/subscribe", get(async move || Json(subscriptions)))
}

/// A sidecar that delivers to `app` with retries.
async fn listening(app: &HttpApp) -> Result<Daprd> {
    let rules = resource(RETRIES, "{components: {bus: {inbound: {retry: quick}}}}");
    let daprd = Daprd::builder().app(app).resource(&rules);
    daprd.component("bus", "pubsub.in-memory").start().await
}

#[tokio::test]
async fn a_delivery_is_retried_before_the_message_becomes_a_dead_letter() -> Result<()> {
    let calls = Calls::default();
    let counted = calls.clone();
    let subscription = json!([
        {"pubsubname": "bus", "topic": "orders", "route": "/orders", "deadLetterTopic": "dead"},
        {"pubsubname": "bus", "topic": "flaky", "route": "/flaky", "deadLetterTopic": "dead"},
        {"pubsubname": "bus", "topic": "dead", "route": "/dead"},
    ]);
    let router = subscribe(subscription)
        .route("/orders", post(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route(
            "/flaky",
            post(async move || match counted.next() {
                3 => Json(json!({"status": "SUCCESS"})),
                _ => Json(json!({"status": "RETRY"})),
            }),
        )
        .route("/dead", post(async || "{}"));
    let app = HttpApp::start(router).await?;
    let daprd = listening(&app).await?;
    for topic in ["flaky", "orders"] {
        let path = format!("/v1.0/publish/bus/{topic}");
        let published = daprd.http().post(&path, &json!({"n": 1})).await?;
        assert_eq!(published.status, 204);
    }
    let seen = wait::until("the message is dead", || async {
        let mut seen = BTreeMap::new();
        for request in app.seen() {
            *seen.entry(request.target).or_insert(0) += 1;
        }
        (seen.contains_key("/dead") && seen.get("/flaky") == Some(&3)).then_some(seen)
    })
    .await?;
    let seen: Vec<_> = seen.iter().map(|(path, n)| (path.as_str(), *n)).collect();
    assert_eq!(seen, [("/dead", 1), ("/flaky", 3), ("/orders", 3)]);
    daprd
        .line("Recovered processing operation component[bus] input after 3 attempts")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_batch_is_retried() -> Result<()> {
    let calls = Calls::default();
    let counted = calls.clone();
    let subscription = json!([{
        "pubsubname": "bus", "topic": "orders", "route": "/orders",
        "bulkSubscribe": {"enabled": true, "maxMessagesCount": 1},
    }]);
    let router = subscribe(subscription).route(
        "/orders",
        post(async move |Json(batch): Json<Value>| {
            let status = if counted.next() < 3 {
                "RETRY"
            } else {
                "SUCCESS"
            };
            let entry = batch["entries"][0]["entryId"].clone();
            Json(json!({"statuses": [{"entryId": entry, "status": status}]}))
        }),
    );
    let app = HttpApp::start(router).await?;
    let daprd = listening(&app).await?;
    daprd
        .http()
        .post("/v1.0/publish/bus/orders", &json!({"n": 1}))
        .await?;
    daprd
        .line("Recovered processing operation component[bus] input after 3 attempts")
        .await?;
    assert_eq!(app.seen().len(), 3);
    Ok(())
}

#[tokio::test]
async fn an_open_breaker_refuses_calls_of_its_store_only() -> Result<()> {
    let daprd = Daprd::builder()
        .component("store", "state.in-memory")
        .component("other", "state.in-memory")
        .component("vault", "secretstores.local.env")
        .resource(&resource(
            "{circuitBreakers: {DefaultStatestoreComponentOutboundCircuitBreakerPolicy: {trip: 'true'}, b: {trip: 'true'}}}",
            "{components: {vault: {outbound: {circuitBreaker: b}}}}",
        ))
        .start()
        .await?;
    let http = daprd.http();
    let conflict = json!([{"key": "k", "value": 1, "etag": "7"}]);
    let saved = http.post("/v1.0/state/store", &conflict).await?;
    assert_eq!(saved.status, 409, "{}", saved.text());
    let refused = http.get("/v1.0/state/store/k").await?;
    let (code, message) = refused.error()?;
    assert_eq!((refused.status, &*code), (500, "ERR_STATE_GET"));
    assert!(message.ends_with("circuit breaker is open"), "{message}");
    assert_eq!(http.get("/v1.0/state/other/k").await?.status, 204);
    assert_eq!(http.get("/v1.0/secrets/vault/PATH").await?.status, 200);
    Ok(())
}
