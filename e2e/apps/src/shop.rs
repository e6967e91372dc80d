//! The application of the demo and of the cluster tests. It knows nothing of
//! its surroundings but its sidecar's port: everything else is asked of the
//! sidecar over plain HTTP.
//!
//! Environment: `APP_PORT` (8080), `DAPR_HTTP_PORT` (3500), `STATE_STORE`
//! (`statestore`), `PUBSUB` (`pubsub`), `SUBSCRIBE` (a topic, if any), `STORE_ONCE`
//! (an id: the program stores an order with this id and ends, as a Job does).

mod load;
mod report;
mod sidecar;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use sidecar::Sidecar;

#[derive(Clone)]
struct Shop {
    sidecar: Sidecar,
    store: String,
    pubsub: String,
    topic: Option<String>,
    events: Arc<Mutex<Vec<Value>>>,
    load: load::Load,
    /// Ends with the process.
    running: Arc<Mutex<JoinSet<()>>>,
}

/// The sidecar's answer. Its errors too are passed on with 200, because proxies on
/// the way hide the bodies of other statuses.
fn answer(result: Result<(StatusCode, Value)>) -> Json<Value> {
    Json(match result {
        Ok((status, value)) if status.is_success() => value,
        Ok((status, value)) => json!({"refused": status.as_u16(), "said": value}),
        Err(error) => json!({"error": format!("{error:#}")}),
    })
}

/// Orders an item at another application, through both sidecars.
async fn buy(State(shop): State<Shop>, Query(query): Query<Vec<(String, String)>>) -> Json<Value> {
    let find = |name: &str| {
        query
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.clone())
    };
    let seller = find("from").unwrap_or_else(|| "orders".to_owned());
    let order = json!({"id": find("id").unwrap_or_else(|| "1".to_owned()), "item": find("item")});
    answer(
        shop.sidecar
            .call(
                "POST",
                &format!("/v1.0/invoke/{seller}/method/orders"),
                Some(&order),
            )
            .await,
    )
}

/// Takes an order: stores it, and answers with the caller's app id.
async fn take(
    State(shop): State<Shop>,
    headers: HeaderMap,
    Json(order): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let stored = async {
        let id = order["id"].as_str().unwrap_or_default().to_owned();
        let item = json!([{"key": id, "value": order}]);
        let (status, said) = shop
            .sidecar
            .call("POST", &format!("/v1.0/state/{}", shop.store), Some(&item))
            .await?;
        if !status.is_success() {
            return Ok((status, said));
        }
        let caller = header("dapr-caller-app-id");
        Ok((
            StatusCode::OK,
            json!({"order": order, "stored": true, "caller": caller}),
        ))
    };
    let stored = stored.await;
    // Without its own sidecar it answers 503, so that the caller's may try another
    // instance.
    let status = match stored {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, answer(stored))
}

async fn look_up(State(shop): State<Shop>, Path(id): Path<String>) -> Json<Value> {
    answer(
        shop.sidecar
            .call("GET", &format!("/v1.0/state/{}/{id}", shop.store), None)
            .await,
    )
}

async fn announce(State(shop): State<Shop>, Path(topic): Path<String>, news: Bytes) -> Json<Value> {
    let published = async {
        let news: Value = serde_json::from_slice(&news).context("news has to be JSON")?;
        let path = format!("/v1.0/publish/{}/{topic}", shop.pubsub);
        let (status, said) = shop.sidecar.call("POST", &path, Some(&news)).await?;
        let answer = if status.is_success() {
            json!({"published": true})
        } else {
            said
        };
        Ok((status, answer))
    };
    answer(published.await)
}

async fn subscriptions(State(shop): State<Shop>) -> Json<Value> {
    Json(match &shop.topic {
        None => json!([]),
        Some(topic) => json!([{"pubsubname": shop.pubsub, "topic": topic, "route": "/news"}]),
    })
}

/// An event; one that is to be kept is stored like an order before it counts
/// as received.
async fn receive(State(shop): State<Shop>, Json(event): Json<Value>) -> Json<Value> {
    if let Some(id) = event["data"]["keep"].as_str() {
        let item = json!([{"key": id, "value": event["data"]}]);
        let path = format!("/v1.0/state/{}", shop.store);
        let stored = shop.sidecar.call("POST", &path, Some(&item)).await;
        let status = match stored {
            Ok((status, _)) if status.is_success() => "SUCCESS",
            _ => "RETRY",
        };
        return Json(json!({"status": status}));
    }
    shop.events
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .push(event["data"].clone());
    Json(json!({"status": "SUCCESS"}))
}

/// Has an order's reminder come back as a job, a second from now.
async fn later(State(shop): State<Shop>, Path(id): Path<String>) -> Json<Value> {
    let job = json!({"dueTime": "1s", "data": {"reminder": id}});
    let path = format!("/v1.0/jobs/order-{id}");
    let scheduled = shop.sidecar.call("POST", &path, Some(&job)).await;
    answer(scheduled.map(|(status, said)| match status.is_success() {
        true => (status, json!({"scheduled": true})),
        false => (status, said),
    }))
}

/// A job that is due is kept beside the events.
async fn job(State(shop): State<Shop>, Json(data): Json<Value>) {
    shop.events
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .push(data);
}

async fn received(State(shop): State<Shop>) -> Json<Value> {
    Json(
        shop.events
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .clone()
            .into(),
    )
}

/// Begins a load; its report says when it is over. The plan comes without a
/// content type, by way of the API server.
async fn put_load(State(shop): State<Shop>, plan: Bytes) -> Json<Value> {
    let plan = match serde_json::from_slice(&plan) {
        Ok(plan) => plan,
        Err(error) => return Json(json!({"error": format!("this is not a plan: {error}")})),
    };
    shop.running
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .spawn(shop.load.clone().run(shop.sidecar.clone(), plan));
    Json(json!({"begun": true}))
}

async fn load_report(State(shop): State<Shop>) -> Json<load::Report> {
    Json(shop.load.report())
}

/// Stores an order as soon as the sidecar takes it.
async fn store_once(shop: &Shop, id: &str) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let items = json!([{"key": id, "value": {"id": id}}]);
    let path = format!("/v1.0/state/{}", shop.store);
    let begun = Instant::now();
    loop {
        match shop.sidecar.call("POST", &path, Some(&items)).await {
            Ok((status, _)) if status.is_success() => return Ok(()),
            answer if begun.elapsed() > PATIENCE => {
                anyhow::bail!("the order was not stored: {answer:?}")
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let sidecar = Sidecar::from_env();
    let shop = Shop {
        sidecar,
        store: sidecar::variable("STATE_STORE", "statestore"),
        pubsub: sidecar::variable("PUBSUB", "pubsub"),
        topic: std::env::var("SUBSCRIBE").ok().filter(|t| !t.is_empty()),
        events: Arc::default(),
        load: load::Load::default(),
        running: Arc::default(),
    };
    if let Ok(id) = std::env::var("STORE_ONCE") {
        return store_once(&shop, &id).await;
    }
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/buy", get(buy))
        .route("/orders", post(take))
        .route("/orders/{id}", get(look_up))
        .route("/announce/{topic}", post(announce))
        .route("/dapr/subscribe", get(subscriptions))
        .route("/dapr/config", get(|| async { Json(json!({})) }))
        .route("/news", post(receive).get(received))
        .route("/later/{id}", post(later))
        .route("/job/{name}", post(job))
        .route("/load", post(put_load).get(load_report))
        .with_state(shop);
    sidecar::serve("shop", routes).await
}
