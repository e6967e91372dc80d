//! The first publishes to a Redis, the second delivers.

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::routing::{get, post};
use outrider_harness::{HttpApp, Redis, wait};
use serde_json::{Value, json};

use crate::programs::Side;
use crate::report::Report;

async fn delivered(first: &Side, second: &Side, raw: bool) -> Result<()> {
    let redis = Redis::start().await?.context("redis-server is needed")?;
    let broker = redis.component("broker", "pubsub.redis", "");
    let routes = Router::new()
        .route(
            "/dapr/subscribe",
            get(async || {
                axum::Json(json!([{"pubsubname": "broker", "topic": "news", "route": "/news"}]))
            }),
        )
        .route("/news", post(async || ()));
    let app = HttpApp::start(routes).await?;
    let _subscriber = second
        .sidecar("subscriber")
        .resource(&broker)
        .app(&app)
        .start()
        .await?;
    let publisher = first.sidecar("publisher").resource(&broker).start().await?;
    let news = json!({"number": 1, "text": "ä"});
    let metadata = if raw { "?metadata.rawPayload=true" } else { "" };
    let path = format!("/v1.0/publish/broker/news{metadata}");
    let answer = publisher.http().post(&path, &news).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    let seen = wait::until("the event", || async {
        app.seen().into_iter().find(|seen| seen.target == "/news")
    })
    .await?;
    let event: Value = serde_json::from_slice(&seen.body)?;
    if raw {
        ensure!(event == news, "{event}");
        return Ok(());
    }
    ensure!(event["data"] == news, "{event}");
    let complete = event["source"] == "publisher" && event["pubsubname"] == "broker";
    ensure!(complete, "{event}");
    Ok(())
}

pub async fn all(report: &mut Report, first: &Side, second: &Side) {
    for (what, raw) in [
        ("publish and deliver over Redis", false),
        ("the same without an envelope", true),
    ] {
        let check = delivered(first, second, raw);
        report.check(what, first, second, check).await;
    }
}
