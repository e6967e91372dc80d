//! Servers that the tests start, on loopback.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::eventually;

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

impl Server {
    /// Runs a command of `redis-cli` on this server; its output.
    pub async fn redis_cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(command)
            .output()
            .await
            .expect("redis-cli comes with redis-server");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until a command of `redis-cli` answers with `text` in it.
    pub async fn redis_says(&self, command: &[&str], text: &str) {
        eventually(text, Duration::from_secs(30), || async {
            self.redis_cli(command).await.contains(text)
        })
        .await;
    }
}

/// Starts `redis-server`. `None` means that it is not installed; in CI that
/// panics.
pub async fn redis(more: &[&str]) -> Option<Server> {
    let port = free_port().await;
    let text = port.to_string();
    let mut arguments = vec!["--port", text.as_str(), "--bind", "127.0.0.1"];
    arguments.extend(["--save", "", "--appendonly", "no"]);
    arguments.extend(more);
    start("redis-server", &arguments, port, "redis-server").await
}

/// Starts a sentinel that watches a master under the name `main`.
pub async fn sentinel(master: &Server) -> Option<Server> {
    let port = free_port().await;
    let file = master.folder().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
        sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n",
        master.port
    );
    std::fs::write(&file, text).expect("write");
    let file = file.to_str().expect("the path is text");
    start("redis-server", &[file, "--sentinel"], port, "redis-server").await
}

/// Starts a cluster of two.
pub async fn redis_cluster() -> Option<[Server; 2]> {
    let [bus_one, bus_two] = [free_port().await, free_port().await].map(|port| port.to_string());
    let one = redis(&["--cluster-enabled", "yes", "--cluster-port", &bus_one]).await?;
    let two = redis(&["--cluster-enabled", "yes", "--cluster-port", &bus_two]).await?;
    one.redis_cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"])
        .await;
    two.redis_cli(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"])
        .await;
    one.redis_cli(&[
        "CLUSTER",
        "MEET",
        "127.0.0.1",
        &two.port.to_string(),
        &bus_two,
    ])
    .await;
    for server in [&one, &two] {
        server
            .redis_says(&["CLUSTER", "INFO"], "cluster_state:ok")
            .await;
    }
    Some([one, two])
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
    eventually("the server listens", STARTED_WITHIN, || async {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    Some(Server {
        port,
        _process: process,
        folder,
    })
}

/// A port that nothing listens on at the moment.
pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("is bound").port()
}
