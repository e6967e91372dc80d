use std::ops::Deref;
use std::process::Command;

use anyhow::{Context, Result, bail};
use http::StatusCode;
use tempfile::TempDir;

use crate::http::Client;
use crate::process::{Process, binary};
use crate::{port, wait};

/// A running certificate authority outside Kubernetes.
#[derive(Debug)]
pub struct Sentry {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Sentry {
    /// Starts it with credentials of its own and waits until it is ready.
    pub async fn start() -> Result<Sentry> {
        let folder = tempfile::tempdir()?;
        let (port, healthz_port) = (port::free(), port::free());
        let config = folder.path().join("config.yaml");
        let yaml = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: sentry}\nspec: {mtls: {enabled: true}}\n";
        std::fs::write(&config, yaml)?;
        let credentials = folder.path().join("credentials");
        std::fs::create_dir(&credentials)?;
        let mut command = Command::new(binary("sentry")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            format!("--metrics-port={}", port::free()),
            format!("--issuer-credentials={}", credentials.display()),
            format!("--config={}", config.display()),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            "--trust-domain=localhost".to_owned(),
        ]);
        command.env("NAMESPACE", "default");
        let sentry = Sentry {
            process: Process::start("sentry", &mut command)?,
            folder,
            port,
        };
        let client = Client::new(healthz_port);
        let ready = || async {
            match sentry.status() {
                Some(status) => Some(Err(status)),
                None => client
                    .answers("/healthz", StatusCode::OK)
                    .await
                    .then_some(Ok(())),
            }
        };
        match wait::until("sentry is ready", ready).await {
            Ok(Ok(())) => Ok(sentry),
            Ok(Err(status)) => bail!("sentry ended: {status}\n{}", sentry.lines().join("\n")),
            Err(error) => bail!("{error:#}\n{}", sentry.lines().join("\n")),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The root certificates, in PEM.
    pub fn anchors(&self) -> Result<String> {
        let path = self.folder.path().join("credentials/ca.crt");
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

impl Deref for Sentry {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
