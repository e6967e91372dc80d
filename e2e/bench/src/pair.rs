//! Two sidecars of one binary, and an application behind the second.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use http::{Method, StatusCode};
use outrider_harness::http::Client;
use outrider_harness::{Builder, Daprd, Sentry};

use crate::backend::{BROKER, Backend, TOPIC};
use crate::load::Shot;
use crate::measure;
use crate::row::{self, Ends, Row};

const STATE: &str = "/v1.0/state/store";
pub const ITEM: &str = r#"[{"key":"k","value":{"a":1}}]"#;
/// What is read back.
pub const VALUE: &str = r#"{"a":1}"#;

pub struct Pair {
    path: PathBuf,
    front: Daprd,
    back: Daprd,
    processes: [u32; 2],
    backend: Backend,
}

fn builder(path: &Path, app_id: &str) -> Builder {
    Daprd::builder()
        .binary(path)
        .app_id(app_id)
        .mdns()
        .component("store", "state.in-memory")
        .component(BROKER, "pubsub.in-memory")
        .flag("--log-level=error")
}

impl Pair {
    /// With mTLS if there is a sentry. `index` keeps the pairs apart on the
    /// network.
    pub async fn start(path: &Path, index: usize, sentry: Option<&Sentry>) -> Result<Pair> {
        let backend = Backend::start().await?;
        let kind = if sentry.is_some() { "mtls" } else { "plain" };
        let sidecar = |name: &str| {
            let app_id = format!("{name}-{kind}-{}-{index}", std::process::id());
            let builder = builder(path, &app_id);
            match sentry {
                Some(sentry) => builder.sentry(sentry),
                None => Ok(builder),
            }
        };
        let back = sidecar("back")?.app(&backend.app).start().await?;
        let front = sidecar("front")?.start().await?;
        let pair = Pair {
            path: path.to_owned(),
            processes: [front.id(), back.id()],
            front,
            back,
            backend,
        };
        let saved = pair.front.http().request(Method::POST, STATE, ITEM).await?;
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

    /// Of the first sidecar, which has no application.
    pub fn memory(&self) -> Result<f64> {
        measure::memory(self.front.id())
    }

    fn path(&self) -> row::Path<'_> {
        row::Path {
            processes: &self.processes,
            backend: &self.backend,
        }
    }

    fn invoked(&self, method: &str) -> String {
        format!("/v1.0/invoke/{}/method/{method}", self.back.app_id())
    }

    pub async fn invoke(&self, connections: usize, time: Duration) -> Result<Row> {
        let (port, path) = (self.front.http_port(), self.invoked("get"));
        self.path().get(port, path, connections, time).await
    }

    pub async fn echo(&self, connections: usize, time: Duration) -> Result<Row> {
        let (port, path) = (self.front.http_port(), self.invoked("echo"));
        self.path().echo(port, path, connections, time).await
    }

    pub async fn state_get(&self, connections: usize, time: Duration) -> Result<Row> {
        let shot = Shot {
            answer: Some(VALUE.into()),
            ..Shot::get(self.front.http_port(), format!("{STATE}/k"))
        };
        self.path()
            .row(&shot, Ends::Sidecar, connections, time)
            .await
    }

    pub async fn state_save(&self, connections: usize, time: Duration) -> Result<Row> {
        let shot = Shot {
            status: 204,
            ..Shot::post(self.front.http_port(), STATE.to_owned(), ITEM.into())
        };
        self.path()
            .row(&shot, Ends::Sidecar, connections, time)
            .await
    }

    /// An event for the application, through its own sidecar.
    pub async fn publish(&self, connections: usize, time: Duration) -> Result<Row> {
        let path = format!("/v1.0/publish/{BROKER}/{TOPIC}");
        let shot = Shot {
            status: 204,
            ..Shot::post(self.back.http_port(), path, r#"{"a":1}"#.into())
        };
        self.path().row(&shot, Ends::Event, connections, time).await
    }
}
