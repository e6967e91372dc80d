//! The application that requests end at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use outrider_harness::HttpApp;

/// Component and topic of the events that it gets.
pub const BROKER: &str = "broker";
pub const TOPIC: &str = "news";

/// For events that are still on their way when all are published.
const LIMIT: Duration = Duration::from_secs(60);

/// Answers with what it gets, or with little, and counts.
pub struct Backend {
    pub app: HttpApp,
    calls: Arc<AtomicU64>,
    events: Arc<AtomicU64>,
}

impl Backend {
    pub async fn start() -> Result<Backend> {
        let (calls, events) = (Arc::default(), Arc::default());
        let count = |counter: &Arc<AtomicU64>| {
            let counter = Arc::clone(counter);
            move || counter.fetch_add(1, Ordering::Relaxed)
        };
        let (echoed, got, delivered) = (count(&calls), count(&calls), count(&events));
        let subscriptions =
            format!(r#"[{{"pubsubname":"{BROKER}","topic":"{TOPIC}","route":"/{TOPIC}"}}]"#);
        let router = Router::new()
            .route(
                "/echo",
                post(async move |body: Bytes| {
                    echoed();
                    body
                }),
            )
            .route(
                "/get",
                get(async move || {
                    got();
                    "hello"
                }),
            )
            .route(
                &format!("/{TOPIC}"),
                post(async move |_: Bytes| {
                    delivered();
                }),
            )
            .route(
                "/dapr/subscribe",
                get(async move || {
                    (
                        [("content-type", "application/json")],
                        subscriptions.clone(),
                    )
                }),
            );
        Ok(Backend {
            app: HttpApp::streaming(router).await?,
            calls,
            events,
        })
    }

    /// Calls that reached it.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Waits until it got so many events in all.
    pub async fn delivered(&self, wanted: u64) -> Result<()> {
        let start = std::time::Instant::now();
        while self.events() < wanted {
            if start.elapsed() > LIMIT {
                bail!("{} of {wanted} events were delivered", self.events());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}
