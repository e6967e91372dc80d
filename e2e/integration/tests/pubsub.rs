use anyhow::{Context, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use outrider_harness::http::Client;
use outrider_harness::{Daprd, HttpApp, wait};
use serde_json::{Value, json};

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
    let event: Value = serde_json::from_slice(&seen.body).context("no JSON")?;
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

/// Where an event of this data went, by the path that it is delivered to.
async fn routed(daprd: &Daprd, app: &HttpApp, topic: &str, data: Value) -> Result<String> {
    let before = app.seen().len();
    let published = daprd
        .http()
        .post(&format!("/v1.0/publish/bus/{topic}"), &data)
        .await?;
    assert_eq!(published.status, 204);
    let seen = wait::until("the event is delivered", || async {
        app.seen().into_iter().nth(before)
    })
    .await?;
    Ok(seen.target)
}

#[tokio::test]
async fn rules_know_times_and_a_rule_that_fails_sends_to_the_default() -> Result<()> {
    let topic = |topic: &str, condition: &str| {
        json!({"pubsubname": "bus", "topic": topic, "routes": {
            "rules": [{"match": condition, "path": "/rule"}], "default": "/default",
        }})
    };
    let subscriptions = json!([
        topic(
            "recent",
            "timestamp(event.time) > timestamp('2020-01-01T00:00:00Z')"
        ),
        topic("unknown", "event.type.lowerCase() == 'x'"),
        topic("missing", "event.data.missing == 1"),
        topic(
            "endless",
            "event.data.exists(a, event.data.exists(b, event.data.exists(c, event.data.exists(d, a + b == c + d + 'x'))))"
        ),
    ]);
    let router = Router::new()
        .route("/dapr/subscribe", get(async move || Json(subscriptions)))
        .fallback(async || "{}");
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("bus", "pubsub.in-memory")
        .start()
        .await?;
    daprd
        .line("app is subscribed to the following topics")
        .await?;
    assert_eq!(routed(&daprd, &app, "recent", json!(1)).await?, "/rule");
    assert_eq!(
        routed(&daprd, &app, "missing", json!({})).await?,
        "/default"
    );
    daprd
        .line("a routing rule of pubsub bus and topic missing failed, the event goes to the default route")
        .await?;
    // A rule of nested loops over a list that its publisher chose the length of.
    let list: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    assert_eq!(
        routed(&daprd, &app, "endless", json!(list)).await?,
        "/default"
    );
    daprd
        .line("the condition takes too long on this data")
        .await?;
    // A rule that cannot work is refused by name, and only its own subscription.
    daprd.line("undeclared function 'lowerCase'").await?;
    let metadata = daprd.http().get("/v1.0/metadata").await?.json()?;
    let topics: Vec<&str> = metadata["subscriptions"]
        .as_array()
        .context("no subscriptions")?
        .iter()
        .filter_map(|s| s["topic"].as_str())
        .collect();
    assert_eq!(topics, ["recent", "missing", "endless"]);
    let failed = r#"dapr_component_pubsub_ingress_rule_failed_count{app_id="app",component="bus",namespace="",topic="missing"} 1"#;
    let page = Client::new(daprd.metrics_port())
        .get("/metrics")
        .await?
        .text();
    assert!(page.contains(failed), "{page}");
    Ok(())
}
