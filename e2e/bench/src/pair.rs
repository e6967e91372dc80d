//! Two sidecars of one binary, and an application behind the second.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Method, StatusCode};
use outrider_harness::http::Client;
use outrider_harness::{Builder, Daprd, HttpApp};

use crate::load::{self, Outcome, Shot};
use crate::measure;

const STATE: &str = "/v1.0/state/store";

pub struct Pair {
    path: PathBuf,
    front: Daprd,
    back: Daprd,
    /// Calls that reached the application.
    delivered: Arc<AtomicU64>,
    _app: HttpApp,
}

/// One row of the table in one round.
pub struct Row {
    pub outcome: Outcome,
    /// Processor time of both sidecars per request, in microseconds.
    pub cpu: f64,
}

fn builder(path: &Path, app_id: &str) -> Builder {
    Daprd::builder()
        .binary(path)
        .app_id(app_id)
        .mdns()
        .component("store", "state.in-memory")
        .flag("--log-level=error")
}

impl Pair {
    /// `index` tells the pairs apart on the network.
    pub async fn start(path: &Path, index: usize) -> Result<Pair> {
        let delivered = Arc::new(AtomicU64::new(0));
        let (echoed, got) = (Arc::clone(&delivered), Arc::clone(&delivered));
        let router = Router::new()
            .route(
                "/echo",
                post(async move |body: Bytes| {
                    echoed.fetch_add(1, Ordering::Relaxed);
                    body
                }),
            )
            .route(
                "/get",
                get(async move || {
                    got.fetch_add(1, Ordering::Relaxed);
                    "hello"
                }),
            );
        let app = HttpApp::streaming(router).await?;
        let unique = format!("{}-{index}", std::process::id());
        let back = builder(path, &format!("back-{unique}"))
            .app(&app)
            .start()
            .await?;
        let front = builder(path, &format!("front-{unique}")).start().await?;
        let pair = Pair {
            path: path.to_owned(),
            front,
            back,
            delivered,
            _app: app,
        };
        let client = pair.front.http();
        let item = r#"[{"key":"k","value":{"a":1}}]"#;
        let saved = client.request(Method::POST, STATE, item).await?;
        ensure!(saved.status == 204, "cannot save state");
        Ok(pair)
    }

    /// From the start of the process until it says that it is ready.
    pub async fn boot(&self) -> Result<Duration> {
        let start = Instant::now();
        let daprd = builder(&self.path, &format!("boot-{}", std::process::id())).spawn()?;
        let client = Client::new(daprd.http_port());
        while !client
            .answers("/v1.0/healthz", StatusCode::NO_CONTENT)
            .await
        {
            if let Some(status) = daprd.status() {
                bail!("{} ended: {status}", self.path.display());
            }
            ensure!(start.elapsed() < Duration::from_secs(30), "is never ready");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = start.elapsed();
        daprd.stop().await?;
        Ok(took)
    }

    pub fn memory(&self) -> Result<f64> {
        measure::memory(self.front.id())
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(measure::cpu(self.front.id())? + measure::cpu(self.back.id())?)
    }

    async fn row(&self, shot: Shot, connections: usize, time: Duration) -> Result<Row> {
        let called = shot.path.contains("/invoke/");
        load::fire(&shot, connections, time / 4)
            .await
            .context("warming up")?;
        let (cpu, delivered) = (self.cpu()?, self.delivered.load(Ordering::Relaxed));
        let outcome = load::fire(&shot, connections, time).await?;
        let count = outcome.times.len();
        let cpu = (self.cpu()? - cpu).as_secs_f64() * 1e6 / count as f64;
        if called {
            let reached = self.delivered.load(Ordering::Relaxed) - delivered;
            ensure!(
                usize::try_from(reached)? == count,
                "{reached} of {count} calls reached the application"
            );
        }
        Ok(Row { outcome, cpu })
    }

    fn shot(&self, method: Method, path: String, body: Bytes) -> Shot {
        Shot {
            port: self.front.http_port(),
            method,
            path,
            answer: body.clone(),
            body,
            status: 200,
        }
    }

    pub async fn invoke(&self, connections: usize, time: Duration) -> Result<Row> {
        let path = format!("/v1.0/invoke/{}/method/get", self.back.app_id());
        let mut shot = self.shot(Method::GET, path, Bytes::new());
        shot.answer = Bytes::from_static(b"hello");
        self.row(shot, connections, time).await
    }

    /// With a kibibyte there and back.
    pub async fn echo(&self, connections: usize, time: Duration) -> Result<Row> {
        let path = format!("/v1.0/invoke/{}/method/echo", self.back.app_id());
        let body = Bytes::from(vec![b'x'; 1024]);
        self.row(self.shot(Method::POST, path, body), connections, time)
            .await
    }

    pub async fn state_get(&self, connections: usize, time: Duration) -> Result<Row> {
        let mut shot = self.shot(Method::GET, format!("{STATE}/k"), Bytes::new());
        shot.answer = Bytes::from_static(br#"{"a":1}"#);
        self.row(shot, connections, time).await
    }

    pub async fn state_save(&self, connections: usize, time: Duration) -> Result<Row> {
        let body = Bytes::from_static(br#"[{"key":"k","value":{"a":1}}]"#);
        let mut shot = self.shot(Method::POST, STATE.to_owned(), body);
        (shot.status, shot.answer) = (204, Bytes::new());
        self.row(shot, connections, time).await
    }
}
