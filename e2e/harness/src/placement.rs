use std::ops::Deref;
use std::process::Command;

use anyhow::{Result, bail};

use crate::port;
use crate::process::{Process, binary};

/// A running placement, or one replica of it.
#[derive(Debug)]
pub struct Placement {
    process: Process,
    port: u16,
    healthz_port: u16,
}

impl Placement {
    /// Starts it alone, with these flags besides, and waits until it is ready.
    pub async fn start(flags: &[&str]) -> Result<Placement> {
        let placement = Placement::spawn(flags)?;
        match placement.ready().await {
            Ok(()) => Ok(placement),
            Err(error) => bail!("{error:#}\n{}", placement.lines().join("\n")),
        }
    }

    /// Starts replicas that know each other, and waits until they are ready.
    pub async fn replicas(count: usize) -> Result<Vec<Placement>> {
        let all: Vec<_> = (0..count)
            .map(|index| format!("p{index}=127.0.0.1:{}", port::free()))
            .collect();
        let all = format!("--initial-cluster={}", all.join(","));
        let mut replicas = Vec::new();
        for index in 0..count {
            replicas.push(Placement::spawn(&[&format!("--id=p{index}"), &all])?);
        }
        for replica in &replicas {
            replica.ready().await?;
        }
        Ok(replicas)
    }

    fn spawn(flags: &[&str]) -> Result<Placement> {
        let (port, healthz_port) = (port::free(), port::free());
        let mut command = Command::new(binary("placement")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            format!("--metrics-port={}", port::free()),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            "--metadata-enabled".to_owned(),
        ]);
        command.args(flags);
        Ok(Placement {
            process: Process::start("placement", &mut command)?,
            port,
            healthz_port,
        })
    }

    async fn ready(&self) -> Result<()> {
        crate::process::healthy("placement", &self.process, self.healthz_port).await
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the page with its hosts.
    pub fn healthz_port(&self) -> u16 {
        self.healthz_port
    }
}

impl Deref for Placement {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
