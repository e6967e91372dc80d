//! Counters that are actors, and a load on them.
//!
//! An actor's state says how often it has counted and which activations of it have
//! written: one that writes again after another one has written was active at the
//! same time. It prints when each turn began and ended, once its state is saved, and
//! when each reminder came, in microseconds since 1970. Environment: `APP_PORT` (8080), `DAPR_HTTP_PORT` (3500), `HOSTNAME`, and
//! `HOSTS` (`false`: an application that only calls actors).

mod counting;
mod report;
mod sidecar;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use sidecar::{Sidecar, variable};

/// The type of these actors.
pub const TYPE: &str = "counter";
/// The key of an actor's state.
const KEY: &str = "counter";

#[derive(Clone)]
struct Counters {
    sidecar: Sidecar,
    /// This pod.
    host: String,
    hosts: bool,
    /// The number of the activation of each actor that is active here.
    active: Arc<Mutex<HashMap<String, u64>>>,
    activations: Arc<AtomicU64>,
    load: counting::Load,
    /// Ends with the process.
    running: Arc<Mutex<JoinSet<()>>>,
}

/// What an actor keeps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Counter {
    pub count: u64,
    /// Those that have written, in the order of their first write; `pod/number`. One
    /// that writes again after another is in here twice.
    pub activations: Vec<String>,
    /// How often each reminder came.
    pub reminders: HashMap<String, u64>,
}

impl Counters {
    /// Changes an actor's state, as an activation of it does.
    async fn change(&self, id: &str, change: impl FnOnce(&mut Counter)) -> Result<Counter> {
        let begun = now();
        let activation = {
            let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
            let next = || self.activations.fetch_add(1, Ordering::Relaxed);
            let number = *active.entry(id.to_owned()).or_insert_with(next);
            format!("{}/{number}", self.host)
        };
        let mut counter = self.read(id).await?;
        if counter.activations.last() != Some(&activation) {
            counter.activations.push(activation);
        }
        change(&mut counter);
        let upsert = json!([{"operation": "upsert", "request": {"key": KEY, "value": counter}}]);
        let path = format!("/v1.0/actors/{TYPE}/{id}/state");
        let (status, said) = self.sidecar.call("POST", &path, Some(&upsert)).await?;
        ensure!(
            status.is_success(),
            "the state was not saved: {status} {said}"
        );
        println!("turn {id} {begun} {}", now());
        Ok(counter)
    }

    async fn read(&self, id: &str) -> Result<Counter> {
        let path = format!("/v1.0/actors/{TYPE}/{id}/state/{KEY}");
        let (status, said) = self.sidecar.call("GET", &path, None).await?;
        ensure!(
            status.is_success(),
            "the state was not read: {status} {said}"
        );
        match status {
            StatusCode::NO_CONTENT => Ok(Counter::default()),
            _ => serde_json::from_value(said).context("this is no counter"),
        }
    }

    /// Has a reminder of this name come in two seconds.
    async fn remind(&self, id: &str, name: &str) -> Result<()> {
        let path = format!("/v1.0/actors/{TYPE}/{id}/reminders/{name}");
        let due = json!({"dueTime": "2s"});
        let (status, said) = self.sidecar.call("POST", &path, Some(&due)).await?;
        ensure!(status.is_success(), "no reminder: {status} {said}");
        Ok(())
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

type Answer = Result<Json<Value>, (StatusCode, String)>;

fn answered<T: Serialize>(result: Result<T>) -> Answer {
    let refused = |error: anyhow::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"));
    result.map(|value| Json(json!(value))).map_err(refused)
}

async fn config(State(counters): State<Counters>) -> Json<Value> {
    let entities = if counters.hosts {
        vec![TYPE]
    } else {
        Vec::new()
    };
    Json(json!({"entities": entities, "drainOngoingCallTimeout": "10s"}))
}

async fn method(
    State(counters): State<Counters>,
    Path((_, id, method)): Path<(String, String, String)>,
    body: Bytes,
) -> Answer {
    match method.as_str() {
        "add" => answered(counters.change(&id, |counter| counter.count += 1).await),
        "get" => answered(counters.read(&id).await),
        "later" => {
            let name = String::from_utf8_lossy(&body);
            answered(counters.remind(&id, name.trim_matches('"')).await)
        }
        _ => Err((StatusCode::NOT_FOUND, method)),
    }
}

async fn reminded(
    State(counters): State<Counters>,
    Path((_, id, name)): Path<(String, String, String)>,
) -> Answer {
    println!("reminded {name} {}", now());
    let came = |counter: &mut Counter| *counter.reminders.entry(name).or_default() += 1;
    answered(counters.change(&id, came).await)
}

async fn deactivate(
    State(counters): State<Counters>,
    Path((_, id)): Path<(String, String)>,
) -> StatusCode {
    let mut active = counters
        .active
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    active.remove(&id);
    StatusCode::OK
}

/// Begins a load; its report says when it is over. The plan comes without a
/// content type, by way of the API server.
async fn put_load(State(counters): State<Counters>, plan: Bytes) -> Json<Value> {
    let plan = match serde_json::from_slice(&plan) {
        Ok(plan) => plan,
        Err(error) => return Json(json!({"error": format!("this is not a plan: {error}")})),
    };
    let load = counters.load.clone().run(counters.sidecar.clone(), plan);
    let mut running = counters
        .running
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    running.spawn(load);
    Json(json!({"begun": true}))
}

async fn load_report(State(counters): State<Counters>) -> Json<counting::Report> {
    Json(counters.load.report())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let counters = Counters {
        sidecar: Sidecar::from_env(),
        host: variable("HOSTNAME", "localhost"),
        hosts: variable("HOSTS", "true") == "true",
        active: Arc::default(),
        activations: Arc::default(),
        load: counting::Load::default(),
        running: Arc::default(),
    };
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/dapr/config", get(config))
        .route("/actors/{type}/{id}", delete(deactivate))
        .route("/actors/{type}/{id}/method/{method}", put(method))
        .route("/actors/{type}/{id}/method/remind/{name}", put(reminded))
        .route("/load", post(put_load).get(load_report))
        .with_state(counters);
    sidecar::serve("counter", routes).await
}
