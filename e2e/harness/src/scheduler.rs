use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::port;
use crate::process::{Process, binary};

/// A running scheduler of one member, which keeps its jobs in one file.
#[derive(Debug)]
pub struct Scheduler {
    process: Process,
    port: u16,
    healthz_port: u16,
    metrics_port: u16,
}

impl Scheduler {
    /// Starts it with its data in `folder`, and waits until it is ready.
    pub async fn start(folder: &Path) -> Result<Scheduler> {
        Scheduler::on(port::free(), folder).await
    }

    /// The same on a port of the caller's choice.
    pub async fn on(port: u16, folder: &Path) -> Result<Scheduler> {
        Scheduler::at(port, folder, &[]).await
    }

    /// The same with these flags besides.
    pub async fn with(folder: &Path, flags: &[&str]) -> Result<Scheduler> {
        Scheduler::at(port::free(), folder, flags).await
    }

    /// The same with both.
    pub async fn at(port: u16, folder: &Path, flags: &[&str]) -> Result<Scheduler> {
        let (healthz_port, metrics_port) = (port::free(), port::free());
        let mut command = Command::new(binary("scheduler")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            format!("--metrics-port={metrics_port}"),
            format!("--etcd-client-port={}", port::free()),
            format!("--etcd-data-dir={}", folder.display()),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
        ]);
        command.args(flags);
        let scheduler = Scheduler {
            process: Process::start("scheduler", &mut command)?,
            port,
            healthz_port,
            metrics_port,
        };
        match scheduler.ready().await {
            Ok(()) => Ok(scheduler),
            Err(error) => bail!("{error:#}\n{}", scheduler.lines().join("\n")),
        }
    }

    async fn ready(&self) -> Result<()> {
        crate::process::healthy("scheduler", &self.process, self.healthz_port).await
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }
}

impl Deref for Scheduler {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
