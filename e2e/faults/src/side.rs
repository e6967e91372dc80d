//! The programs of one side, and how a sidecar of it is started.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_conformance::server::port;
use outrider_harness::binary;
use outrider_harness::http::Client;

use crate::pod::Pod;
use crate::program::{Launch, Program};
use crate::wait;

/// Scheduler and sidecars of Dapr take their time.
const STARTED: Duration = Duration::from_secs(60);

/// Ours, or Dapr's.
#[derive(Debug, Clone)]
pub struct Side {
    /// None for ours, which the harness finds.
    folder: Option<PathBuf>,
}

impl Side {
    pub fn ours() -> Side {
        Side { folder: None }
    }

    pub fn theirs(folder: &Path) -> Side {
        let folder = Some(folder.to_owned());
        Side { folder }
    }

    pub fn is_ours(&self) -> bool {
        self.folder.is_none()
    }

    pub fn name(&self) -> &'static str {
        if self.is_ours() { "Outrider" } else { "Dapr" }
    }

    pub fn program(&self, name: &str) -> Result<PathBuf> {
        match &self.folder {
            None => binary(name),
            Some(folder) => Ok(folder.join(name)),
        }
    }
}

/// What a sidecar is started with.
pub struct Setting<'a> {
    pub side: &'a Side,
    pub app_id: &'a str,
    pub app_port: Option<u16>,
    pub resources: Vec<String>,
    pub flags: Vec<String>,
    pub pod: &'a Pod,
    /// Of the scenario.
    pub folder: &'a Path,
}

/// A sidecar that has the same ports after each start.
#[derive(Debug)]
pub struct Sidecar {
    pub program: Program,
    pub http_port: u16,
    address: IpAddr,
}

impl Setting<'_> {
    pub fn start(self, http_port: u16) -> Result<Sidecar> {
        let folder = self.folder.join(self.app_id).join(http_port.to_string());
        let resources = folder.join("resources");
        std::fs::create_dir_all(&resources)?;
        for (index, yaml) in self.resources.iter().enumerate() {
            std::fs::write(resources.join(format!("{index}.yaml")), yaml)?;
        }
        let config = folder.join("config.yaml");
        let names = self.folder.join("names.db");
        std::fs::write(
            &config,
            format!(
                "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: config}}\nspec:\n  nameResolution: {{component: sqlite, version: v1, configuration: {{connectionString: \"{}\"}}}}\n",
                names.display()
            ),
        )?;
        let mut launch = Launch::new(self.side.program("daprd")?, self.pod)
            .env("DAPR_HOST_IP", self.pod.address)
            .env("HOME", folder.display())
            .with([
                format!("--app-id={}", self.app_id),
                format!("--dapr-http-port={http_port}"),
                format!("--dapr-grpc-port={}", port::free()),
                format!("--dapr-internal-grpc-port={}", port::free()),
                format!("--metrics-port={}", port::free()),
                format!("--resources-path={}", resources.display()),
                format!("--config={}", config.display()),
                "--dapr-listen-addresses=0.0.0.0".to_owned(),
                "--metrics-listen-address=127.0.0.1".to_owned(),
                "--log-level=info".to_owned(),
            ])
            .with(self.flags);
        if let Some(port) = self.app_port {
            launch = launch.with([format!("--app-port={port}")]);
        }
        let name = format!("{}-{http_port}", self.app_id);
        Ok(Sidecar {
            program: Program::start(&name, launch, self.folder)?,
            http_port,
            address: self.pod.address,
        })
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(self) -> Result<Sidecar> {
        let sidecar = self.start(port::free())?;
        sidecar.is_ready().await?;
        Ok(sidecar)
    }
}

impl Sidecar {
    pub fn http(&self) -> Client {
        Client::at(&format!("{}:{}", self.address, self.http_port))
    }

    pub async fn is_ready(&self) -> Result<()> {
        answers(&self.http(), "/v1.0/healthz", &self.program).await
    }
}

/// Waits until a health page says that all is well.
pub async fn answers(client: &Client, path: &str, program: &Program) -> Result<()> {
    let well = wait::some(STARTED, || async {
        if program.has_ended() {
            return Some(false);
        }
        is_well(client, path).await.then_some(true)
    });
    let well = well.await == Some(true);
    ensure!(well, "not ready, or ended: {}", program.last_words());
    Ok(())
}

/// Whether a health page says that all is well, right now.
pub async fn is_well(client: &Client, path: &str) -> bool {
    let asked = tokio::time::timeout(Duration::from_secs(1), client.get(path)).await;
    matches!(asked, Ok(Ok(answer)) if matches!(answer.status, 200 | 204))
}
