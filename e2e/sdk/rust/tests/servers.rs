//! Servers that sidecars need, each started for one test.
//! `OUTRIDER_PLACEMENT` and `OUTRIDER_SCHEDULER` name the binaries.

use std::process::Stdio;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::sidecar::{binary, free_port, page, until, within};

/// A running server. Dropping it ends it.
pub struct Server {
    /// A flag of sidecars, or the metadata of components.
    pub address: String,
    port: u16,
    _folder: TempDir,
    _child: Child,
}

pub async fn placement() -> Result<Server> {
    let folder = tempfile::tempdir()?;
    let peers = format!(
        "--initial-cluster=dapr-placement-0=127.0.0.1:{}",
        free_port()
    );
    let mut server = service("OUTRIDER_PLACEMENT", &[peers], folder).await?;
    server.address = format!("--placement-host-address=127.0.0.1:{}", server.port);
    Ok(server)
}

pub async fn scheduler() -> Result<Server> {
    let folder = tempfile::tempdir()?;
    let flags = [
        format!("--etcd-data-dir={}", folder.path().display()),
        format!("--etcd-client-port={}", free_port()),
        format!(
            "--etcd-initial-cluster=dapr-scheduler-server-0=http://127.0.0.1:{}",
            free_port()
        ),
    ];
    let mut server = service("OUTRIDER_SCHEDULER", &flags, folder).await?;
    server.address = format!("--scheduler-host-address=127.0.0.1:{}", server.port);
    Ok(server)
}

async fn service(variable: &str, flags: &[String], folder: TempDir) -> Result<Server> {
    let [port, health, metrics] = std::array::from_fn(|_| free_port());
    let mut command = Command::new(binary(variable)?);
    command
        .args([
            format!("--port={port}"),
            format!("--healthz-port={health}"),
            format!("--metrics-port={metrics}"),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
        ])
        .args(flags);
    let child = start(command)?;
    let healthy = || async { (page(health, "/healthz").await? == "200").then_some(()) };
    until("the service is healthy", healthy).await?;
    Ok(Server {
        address: String::new(),
        port,
        _folder: folder,
        _child: child,
    })
}

pub async fn redis() -> Result<Server> {
    let folder = tempfile::tempdir()?;
    let port = free_port();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir"])
        .arg(folder.path());
    let child = start(command)?;
    let connected = || async { TcpStream::connect(("127.0.0.1", port)).await.ok() };
    until("redis listens", connected).await?;
    Ok(Server {
        address: format!("{{name: redisHost, value: \"127.0.0.1:{port}\"}}"),
        port,
        _folder: folder,
        _child: child,
    })
}

impl Server {
    /// Sets a key of a Redis.
    pub async fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let command = format!("SET {key} {value}\r\n");
        stream.write_all(command.as_bytes()).await?;
        let mut answer = [0; 5];
        within("redis answers", stream.read_exact(&mut answer)).await??;
        ensure!(&answer == b"+OK\r\n", "redis answered {answer:?}");
        Ok(())
    }
}

/// Starts a program that ends when it is dropped.
pub fn start(mut command: Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    Ok(command.spawn()?)
}
