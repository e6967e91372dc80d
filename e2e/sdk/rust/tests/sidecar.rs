use std::collections::HashMap;
use std::ffi::OsString;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dapr::client::{ClientOptions, TonicClientWithAuth};
use dapr::dapr::proto::runtime::v1::dapr_client::DaprClient;
use dapr::error::Error;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

/// What anything may take on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(30);

pub const STORE: &str = "store";
pub const BROKER: &str = "broker";
pub const SECRETS: &str = "secrets";

pub type Client = dapr::Client<TonicClientWithAuth>;

/// How a sidecar is started.
#[derive(Default)]
pub struct Setup {
    /// The folder with the database of names.
    pub names: Option<PathBuf>,
    pub flags: Vec<String>,
    /// Components besides those that all have.
    pub parts: Vec<String>,
    /// What clients of the API have to know.
    pub token: Option<&'static str>,
}

/// A running daprd. Dropping it ends it.
pub struct Sidecar {
    pub id: String,
    pub names: PathBuf,
    pub grpc_port: u16,
    http_port: u16,
    folder: TempDir,
    _child: Child,
}

impl Setup {
    /// Starts it without waiting.
    pub fn start(self) -> Result<Sidecar> {
        let program = binary("OUTRIDER_DAPRD")?;
        let folder = tempfile::tempdir()?;
        let resources = folder.path().join("resources");
        std::fs::create_dir(&resources)?;
        let secrets = folder.path().join("secrets.json");
        std::fs::write(
            &secrets,
            r#"{"password": "s3cret", "user": {"name": "ada"}}"#,
        )?;
        let file = format!("{{name: secretsFile, value: {secrets:?}}}");
        let mut all = self.parts;
        all.extend([
            component(
                STORE,
                "state.in-memory",
                r#"{name: actorStateStore, value: "true"}"#,
            ),
            component(BROKER, "pubsub.in-memory", ""),
            component(SECRETS, "secretstores.local.file", &file),
        ]);
        std::fs::write(resources.join("all.yaml"), all.join("---\n"))?;
        let id = unique("app");
        let [http_port, grpc_port, internal_port, metrics_port] =
            std::array::from_fn(|_| free_port());
        let output = std::fs::File::create(folder.path().join("output"))?;
        let mut command = Command::new(program);
        command
            .args([
                format!("--app-id={id}"),
                format!("--dapr-http-port={http_port}"),
                format!("--dapr-grpc-port={grpc_port}"),
                format!("--dapr-internal-grpc-port={internal_port}"),
                format!("--metrics-port={metrics_port}"),
                format!("--resources-path={}", resources.display()),
                "--dapr-listen-addresses=127.0.0.1".to_owned(),
                "--dapr-internal-grpc-listen-address=127.0.0.1".to_owned(),
                "--metrics-listen-address=127.0.0.1".to_owned(),
            ])
            .args(self.flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        if let Some(token) = self.token {
            command.env("DAPR_API_TOKEN", token);
        }
        let names = self.names.unwrap_or_else(|| folder.path().to_owned());
        if std::env::var_os("OUTRIDER_NAMES").is_none_or(|names| names != "mdns") {
            let config = folder.path().join("config.yaml");
            std::fs::write(&config, configuration(&names.join("names.db")))?;
            command.arg(format!("--config={}", config.display()));
        }
        Ok(Sidecar {
            id,
            names,
            grpc_port,
            http_port,
            folder,
            _child: command.spawn()?,
        })
    }

    /// Starts it and waits until it is healthy.
    pub async fn ready(self) -> Result<(Sidecar, Client)> {
        let sidecar = self.start()?;
        sidecar.healthy().await?;
        let client = sidecar.client().await?;
        Ok((sidecar, client))
    }
}

pub fn component(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: {kind}\n  version: v1\n  metadata: [{metadata}]\n"
    )
}

fn configuration(names: &Path) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: config}}\nspec:\n  nameResolution: {{component: sqlite, version: v1, configuration: {{connectionString: {names:?}}}}}\n"
    )
}

impl Sidecar {
    pub fn options(&self) -> ClientOptions {
        ClientOptions::new().with_address(format!("http://127.0.0.1:{}", self.grpc_port))
    }

    pub async fn client(&self) -> Result<Client> {
        Ok(Client::from_options(self.options()).await?)
    }

    /// The SDK's generated client, for what its own does not wrap.
    pub async fn generated(&self) -> Result<DaprClient<Channel>> {
        Ok(DaprClient::connect(format!("http://127.0.0.1:{}", self.grpc_port)).await?)
    }

    pub async fn healthy(&self) -> Result<()> {
        let answer = || async {
            let status = page(self.http_port, "/v1.0/healthz").await?;
            (status == "204" || status == "401").then_some(())
        };
        until("the sidecar is healthy", answer).await
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Tests show what they print only when they fail.
        let output = std::fs::read(self.folder.path().join("output")).unwrap_or_default();
        println!(
            "---- {} ----\n{}",
            self.id,
            String::from_utf8_lossy(&output)
        );
    }
}

/// The path that an environment variable names.
pub fn binary(variable: &str) -> Result<OsString> {
    std::env::var_os(variable).with_context(|| format!("set {variable} to the path of a binary"))
}

/// The status that a page answers with.
pub async fn page(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    String::from_utf8(answer.get(9..12)?.to_vec()).ok()
}

/// Asks again until there is an answer.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + TIMEOUT;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("not so after {TIMEOUT:?}: {what}");
        }
    }
}

/// The same for something that comes by itself.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    timeout(TIMEOUT, future)
        .await
        .with_context(|| format!("not so after {TIMEOUT:?}: {what}"))
}

/// Checks that a call failed with a code. The SDK shows the status in its text
/// alone.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: &str, text: &str) {
    let error = match result {
        Err(Error::GrpcError(error)) => format!("{error:?}"),
        other => panic!("{other:?} instead of a status"),
    };
    assert!(
        error.contains(&format!("code: {code}")) || error.contains(&format!("code: '{code}")),
        "no {code} in {error}"
    );
    assert!(error.contains(text), "no '{text}' in {error}");
}

pub fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

pub fn unique(name: &str) -> String {
    let turn = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{turn}", std::process::id())
}

/// A free port, different in every call. All are below what the
/// kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize % 200 * 100;
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + ((start + turn) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
