//! Servers that tests start for themselves, on loopback.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// A running server; dropping it ends it and deletes its files.
pub struct Server {
    pub port: u16,
    _process: Child,
    folder: TempDir,
}

impl Server {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Starts `redis-server`. `None` means that it is not installed and that this
/// is no CI run, where that would be a failure.
pub async fn redis(more: &[&str]) -> Option<Server> {
    let port = free_port().await;
    let text = port.to_string();
    let mut arguments = vec!["--port", text.as_str(), "--bind", "127.0.0.1"];
    arguments.extend(["--save", "", "--appendonly", "no"]);
    arguments.extend(more);
    start("redis-server", &arguments, port, "redis-server").await
}

async fn start(program: &str, arguments: &[&str], port: u16, package: &str) -> Option<Server> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let started = Command::new(program)
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let process = match started {
        Ok(process) => process,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "{program} is missing: apt-get install -y {package}");
            eprintln!("SKIPPED: {program} is missing, apt-get install -y {package} brings it");
            return None;
        }
        Err(error) => panic!("cannot start {program}: {error}"),
    };
    crate::eventually("the server listens", STARTED_WITHIN, || async {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    Some(Server {
        port,
        _process: process,
        folder,
    })
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("is bound").port()
}
