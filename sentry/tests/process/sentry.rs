//! A running sentry. `SENTRY_BINARY` names another program to test instead.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use outrider_proto::sentry::v1::ca_client::CaClient;
use outrider_security::anchors::Source;
use outrider_security::identity::Key;
use outrider_security::{ControlPlane, Expected, Options, Security, SpiffeId, Upkeep, token};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::port;

const DEADLINE: Duration = Duration::from_secs(20);

pub struct Sentry {
    process: Child,
    pub folder: TempDir,
    pub port: u16,
    health: u16,
    metrics: u16,
}

pub fn program() -> Command {
    let path = std::env::var("SENTRY_BINARY");
    Command::new(path.unwrap_or_else(|_| env!("CARGO_BIN_EXE_sentry").to_owned()))
}

/// Something that becomes true, or the test fails.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(value) = holds().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Status and body of a GET without TLS.
pub async fn get(port: u16, path: &str, headers: &str) -> Option<(u16, String)> {
    send(port, "GET", path, headers).await
}

pub async fn send(port: u16, method: &str, path: &str, headers: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let host = if headers.starts_with("Host: ") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{host}{headers}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

impl Sentry {
    /// Starts with `config` as its file and waits until it is ready.
    pub async fn start(config: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, config, more, &[]).await
    }

    pub async fn start_in(
        folder: TempDir,
        config: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        std::fs::write(folder.path().join("config.yaml"), config).unwrap();
        std::fs::create_dir_all(folder.path().join("ca")).unwrap();
        let [port, health, metrics] = [port::free(), port::free(), port::free()];
        let process = program()
            .args([
                format!("-config={}", folder.path().join("config.yaml").display()),
                format!("-issuer-credentials={}", folder.path().join("ca").display()),
                format!("-port={port}"),
                format!("-healthz-port={health}"),
                format!("-metrics-port={metrics}"),
            ])
            .args([
                "-listen-address=127.0.0.1",
                "-healthz-listen-address=127.0.0.1",
            ])
            .arg("-metrics-listen-address=127.0.0.1")
            .args(more)
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut sentry = Self {
            process,
            folder,
            port,
            health,
            metrics,
        };
        sentry.ready().await;
        sentry
    }

    async fn ready(&mut self) {
        let health = self.health;
        let process = &mut self.process;
        until("ready", || {
            assert!(process.try_wait().unwrap().is_none(), "sentry ended");
            async move {
                let (status, _) = get(health, "/healthz", "").await?;
                (status == 200).then_some(())
            }
        })
        .await;
    }

    pub fn ca(&self, name: &str) -> PathBuf {
        self.folder.path().join("ca").join(name)
    }

    pub fn options(&self, app_id: &str, anchors: Source) -> Options {
        Options {
            app_id: app_id.into(),
            namespace: "default".into(),
            control_plane: ControlPlane {
                trust_domain: "localhost".parse().unwrap(),
                namespace: "default".into(),
            },
            anchors,
            sentry_address: format!("127.0.0.1:{}", self.port),
            token: token::Source::None,
            key: Key::Ed25519,
            jwt_audiences: Vec::new(),
            directory: None,
        }
    }

    pub async fn identity(&self, app_id: &str) -> (Security, Upkeep) {
        let anchors = Source::File(self.ca("ca.crt"));
        let start = Security::start(self.options(app_id, anchors));
        tokio::time::timeout(DEADLINE, start)
            .await
            .unwrap()
            .unwrap()
    }

    /// A client that dials sentry and expects its id.
    pub async fn client(&self, security: &Security, id: &str) -> CaClient<Channel> {
        let id: SpiffeId = id.parse().unwrap();
        let connector = security.connector(Expected::Id(id)).unwrap();
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        CaClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }

    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = get(self.metrics, "/metrics", "").await?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Sends SIGINT and waits for the end.
    pub async fn interrupt(&mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let process = &mut self.process;
        until("the end", || {
            let ended = process.try_wait().unwrap();
            async move { ended }
        })
        .await
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs to the end: exit code, and everything printed.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut process = program()
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the end", || {
        let ended = process.try_wait().unwrap();
        async move { ended.map(drop) }
    })
    .await;
    let output = process.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
