//! The application that events are delivered to: a process of its own, which writes down
//! what it gets and what it says of it before it says it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use outrider_conformance::server::port;
use serde_json::{Value, json};

use super::servers::TOPIC;
use crate::pod::Pod;
use crate::program::{Launch, Program};

/// The first word of the command line of this process.
pub const WORD: &str = "app";
/// How long it takes over an event, so that some are always under way.
const WORK: Duration = Duration::from_millis(150);
/// One event in so many is to be delivered once more.
const AGAIN: u64 = 20;

#[derive(Clone)]
struct Work {
    record: Arc<Mutex<File>>,
    /// Those that were to be delivered once more.
    refused: Arc<Mutex<HashSet<u64>>>,
}

impl Work {
    /// A line is written by one call, and outlives this process.
    fn write(&self, what: &str, id: u64) {
        let line = format!("{} {what} {id}\n", crate::load::now());
        let mut file = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            eprintln!("the record cannot be written: {error}");
            std::process::exit(1);
        }
    }

    fn is_to_come_again(&self, id: u64) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        id.is_multiple_of(AGAIN) && refused.insert(id)
    }
}

/// The number of an event: what was published, or the value of a key.
fn number(event: &Value) -> Option<u64> {
    match &event["data"] {
        Value::String(text) => text.parse().ok(),
        data => data["id"].as_u64(),
    }
}

async fn receive(State(work): State<Work>, Json(event): Json<Value>) -> Json<Value> {
    let Some(id) = number(&event) else {
        eprintln!("this is no event of ours: {event}");
        return Json(json!({"status": "DROP"}));
    };
    work.write("got", id);
    tokio::time::sleep(WORK).await;
    if work.is_to_come_again(id) {
        return Json(json!({"status": "RETRY"}));
    }
    work.write("done", id);
    Json(json!({"status": "SUCCESS"}))
}

/// Serves until it is killed. The words are the port and the path of the record.
pub async fn serve(words: &[String]) -> Result<()> {
    let [port, path] = words else {
        anyhow::bail!("port and record are missing");
    };
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let work = Work {
        record: Arc::new(Mutex::new(file)),
        refused: Arc::default(),
    };
    let topics = json!([{"pubsubname": "bus", "topic": TOPIC, "route": "/events"}]);
    let routes = Router::new()
        .route("/dapr/subscribe", get(move || async move { Json(topics) }))
        .route("/dapr/config", get(|| async { Json(json!({})) }))
        .route("/events", post(receive))
        .with_state(work);
    let port: u16 = port.parse().context("this is no port")?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, routes).await?)
}

pub struct App {
    pub program: Program,
    pub port: u16,
    record: PathBuf,
}

/// What the application has written down: when each event came, and when it was done.
#[derive(Debug, Default)]
pub struct History {
    pub got: HashMap<u64, Vec<SystemTime>>,
    pub done: HashMap<u64, Vec<SystemTime>>,
}

impl App {
    pub fn start(folder: &Path) -> Result<App> {
        let (port, record) = (port::free(), folder.join("record"));
        let launch = Launch::new(std::env::current_exe()?, &Pod::local()).with([
            WORD.to_owned(),
            port.to_string(),
            record.display().to_string(),
        ]);
        Ok(App {
            program: Program::start("app", launch, folder)?,
            port,
            record,
        })
    }

    pub fn history(&self) -> History {
        let mut history = History::default();
        let text = std::fs::read_to_string(&self.record).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let at = words.next().and_then(|word| word.parse().ok());
            let (Some(at), Some(what)) = (at, words.next()) else {
                continue;
            };
            let Some(id) = words.next().and_then(|word| word.parse().ok()) else {
                continue;
            };
            let times = match what {
                "got" => &mut history.got,
                _ => &mut history.done,
            };
            times.entry(id).or_default().push(crate::load::time(at));
        }
        history
    }
}

impl History {
    pub fn is_done(&self, id: u64) -> bool {
        self.done.contains_key(&id)
    }
}
