//! The programs of one side.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use outrider_harness::http::Client;
use outrider_harness::{Builder, Daprd, Process, binary, port, wait};

/// Ours, or Dapr's.
pub struct Side {
    /// None for ours, which the harness finds.
    folder: Option<PathBuf>,
}

/// A process of the control plane, and its gRPC port.
pub struct Service {
    pub port: u16,
    _process: Process,
}

impl Side {
    pub fn ours() -> Self {
        Self { folder: None }
    }

    pub fn theirs(folder: &Path) -> Self {
        Self {
            folder: Some(folder.to_owned()),
        }
    }

    pub fn name(&self) -> &'static str {
        match self.folder {
            None => "Outrider",
            Some(_) => "Dapr",
        }
    }

    /// A sidecar that prints errors only.
    pub fn sidecar(&self, app_id: &str) -> Builder {
        let builder = Daprd::builder().app_id(app_id).flag("--log-level=error");
        match &self.folder {
            None => builder,
            Some(folder) => builder.binary(&folder.join("daprd")),
        }
    }

    pub async fn placement(&self) -> Result<Service> {
        self.service("placement", &[]).await
    }

    /// One that keeps its jobs in `folder`.
    pub async fn scheduler(&self, folder: &Path) -> Result<Service> {
        let peer = port::free();
        let flags = [
            format!("--etcd-client-port={}", port::free()),
            format!("--etcd-initial-cluster=dapr-scheduler-server-0=http://127.0.0.1:{peer}"),
            format!("--etcd-data-dir={}", folder.display()),
        ];
        self.service("scheduler", &flags).await
    }

    async fn service(&self, name: &str, flags: &[String]) -> Result<Service> {
        let program = match &self.folder {
            None => binary(name)?,
            Some(folder) => folder.join(name),
        };
        let (port, healthz) = (port::free(), port::free());
        let mut command = Command::new(program);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz}"),
            format!("--metrics-port={}", port::free()),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            "--log-level=error".to_owned(),
        ]);
        command.args(flags);
        let process = Process::start(&format!("{name} of {}", self.name()), &mut command)?;
        let client = Client::new(healthz);
        wait::until(name, || async {
            let answer = client.get("/healthz").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await
        .with_context(|| process.lines().join("\n"))?;
        Ok(Service {
            port,
            _process: process,
        })
    }
}
