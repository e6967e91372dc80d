use std::ops::Deref;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{Process, binary};
use crate::{Authority, port};

/// A running certificate authority outside Kubernetes.
#[derive(Debug)]
pub struct Sentry {
    process: Process,
    folder: TempDir,
    port: u16,
    healthz_port: u16,
}

impl Sentry {
    /// Starts it with credentials of its own and waits until it is ready.
    pub async fn start() -> Result<Sentry> {
        let sentry = Sentry::spawn(&[])?;
        match sentry.ready().await {
            Ok(()) => Ok(sentry),
            Err(error) => bail!("{error:#}\n{}", sentry.lines().join("\n")),
        }
    }

    /// Starts it with this authority, for certificates that live so long, and
    /// waits until it is ready.
    pub async fn of(authority: &Authority, ttl: &str) -> Result<Sentry> {
        let sentry = Sentry::configured(
            &authority.credentials()?,
            &format!("workloadCertTTL: {ttl}"),
        )?;
        match sentry.ready().await {
            Ok(()) => Ok(sentry),
            Err(error) => bail!("{error:#}\n{}", sentry.lines().join("\n")),
        }
    }

    /// Starts it with these files as credentials, and waits for nothing.
    pub fn spawn(credentials: &[(&str, String)]) -> Result<Sentry> {
        Sentry::configured(credentials, "enabled: true")
    }

    /// `mtls` is what the Configuration says of it, as one line of YAML.
    pub fn configured(credentials: &[(&str, String)], mtls: &str) -> Result<Sentry> {
        let folder = tempfile::tempdir()?;
        let (port, healthz_port) = (port::free(), port::free());
        let config = folder.path().join("config.yaml");
        let yaml = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: sentry}}\nspec: {{mtls: {{{mtls}}}}}\n"
        );
        std::fs::write(&config, yaml)?;
        let home = folder.path().join("credentials");
        std::fs::create_dir(&home)?;
        for (name, text) in credentials {
            std::fs::write(home.join(name), text)?;
        }
        let mut command = Command::new(binary("sentry")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            format!("--metrics-port={}", port::free()),
            format!("--issuer-credentials={}", home.display()),
            format!("--config={}", config.display()),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            "--trust-domain=localhost".to_owned(),
        ]);
        command.env("NAMESPACE", "default");
        Ok(Sentry {
            process: Process::start("sentry", &mut command)?,
            folder,
            port,
            healthz_port,
        })
    }

    /// Waits until its health page says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        crate::process::healthy("sentry", &self.process, self.healthz_port).await
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
