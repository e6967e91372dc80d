//! A workload of what sidecars mostly do, to be profiled and traced: an identity
//! from sentry, names in SQLite, calls of an application, state and events in
//! memory and in Redis, and then the benchmark.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Of each wait: programs are slow under valgrind.
const LIMIT: Duration = Duration::from_secs(60);
const COMPONENTS: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broker}
spec: {type: pubsub.in-memory, version: v1}
";
/// What the caller is asked, several times: method, path and body.
const REQUESTS: [(&str, &str, &str); 7] = [
    (
        "POST",
        "/v1.0/state/store",
        r#"[{"key":"k","value":{"a":1}}]"#,
    ),
    ("GET", "/v1.0/state/store/k", ""),
    ("POST", "/v1.0/publish/broker/news", r#"{"a":1}"#),
    (
        "POST",
        "/v1.0/invoke/called/method/orders",
        r#"{"id":"1","item":"book"}"#,
    ),
    ("GET", "/v1.0/invoke/called/method/orders/1", ""),
    ("POST", "/v1.0/publish/pubsub/news", r#"{"a":1}"#),
    ("GET", "/v1.0/metadata", ""),
];
const REDIS: [(&str, &str); 2] = [("statestore", "state.redis"), ("pubsub", "pubsub.redis")];

/// Runs the workload with sidecars that the shell command `command` starts, in
/// `folder`, which is emptied first. The other programs are in `programs`.
pub fn run(command: &str, programs: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let sidecar = folder.join("daprd");
    fs::write(&sidecar, format!("#!/bin/sh\nexec {command} \"$@\"\n"))?;
    fs::set_permissions(&sidecar, fs::Permissions::from_mode(0o755))?;
    two_sidecars(&sidecar, programs, &folder.join("pair"))?;
    let mut bench = Command::new(programs.join("outrider-bench"));
    bench
        .args(["--seconds", "2", "--rounds", "1", "--rest", "1"])
        .arg("--no-limit")
        .arg(&sidecar)
        // Of sentry, for sidecars with mTLS.
        .env("OUTRIDER_BIN_DIR", programs);
    run::run(&mut bench)
}

/// Runs two sidecars of `program`, with sentry and the test application of
/// `programs` beside them.
fn two_sidecars(program: &Path, programs: &Path, folder: &Path) -> Result<()> {
    let resources = folder.join("resources");
    fs::create_dir_all(&resources)?;
    fs::write(resources.join("components.yaml"), COMPONENTS)?;
    let _redis = redis(&resources)?;
    let sentry = Sentry::start(programs, folder)?;
    let sidecars = Sidecars {
        program,
        config: configuration(folder)?,
        resources,
        sentry: &sentry,
    };
    let app_port = free_port()?;
    let (caller, mut first) = sidecars.start("caller", None)?;
    let (called, mut second) = sidecars.start("called", Some(app_port))?;
    let _app = KilledOnDrop(
        Command::new(programs.join("shop"))
            .env("APP_PORT", app_port.to_string())
            .env("DAPR_HTTP_PORT", called.to_string())
            .env("SUBSCRIBE", "news")
            .stdout(Stdio::null())
            .spawn()?,
    );
    for port in [caller, called] {
        wait("a sidecar", || {
            let answer = request(port, "GET", "/v1.0/healthz", "").ok()?;
            answer.contains(" 204 ").then_some(())
        })?;
    }
    for (method, path, body) in REQUESTS {
        for _ in 0..5 {
            request(caller, method, path, body).with_context(|| path.to_owned())?;
        }
    }
    wait("the news", || {
        let answer = request(caller, "GET", "/v1.0/invoke/called/method/news", "").ok()?;
        answer.contains("\"a\":1").then_some(())
    })?;
    // A trace is written when its process ends well.
    for (port, child) in [(caller, &mut first), (called, &mut second)] {
        request(port, "POST", "/v1.0/shutdown", "")?;
        wait("the end of a sidecar", || child.0.try_wait().ok().flatten())?;
    }
    Ok(())
}

/// Starts Redis, and writes the components that use it.
fn redis(resources: &Path) -> Result<KilledOnDrop> {
    let port = free_port()?;
    let redis = KilledOnDrop(
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .context("the sidecars need Debian's redis-server")?,
    );
    for (name, kind) in REDIS {
        fs::write(
            resources.join(format!("{name}.yaml")),
            format!(
                "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: {kind}\n  version: v1\n  metadata:\n  - {{name: redisHost, value: \"127.0.0.1:{port}\"}}\n"
            ),
        )?;
    }
    wait("Redis", || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(redis)
}

/// A Configuration by which sidecars find each other in a database.
fn configuration(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("config.yaml");
    let names = folder.join("names.db").display().to_string();
    fs::write(
        &path,
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: config}}\nspec:\n  nameResolution: {{component: sqlite, version: v1, configuration: {{connectionString: {names:?}}}}}\n"
        ),
    )?;
    Ok(path)
}

struct Sentry {
    port: u16,
    /// The root certificates, in PEM.
    anchors: String,
    _process: KilledOnDrop,
}

impl Sentry {
    fn start(programs: &Path, folder: &Path) -> Result<Sentry> {
        let credentials = folder.join("credentials");
        fs::create_dir_all(&credentials)?;
        let empty = folder.join("empty.yaml");
        fs::write(&empty, "")?;
        let port = free_port()?;
        let process = KilledOnDrop(
            Command::new(programs.join("sentry"))
                .arg(format!("--port={port}"))
                .arg(format!("--healthz-port={}", free_port()?))
                .arg(format!("--metrics-port={}", free_port()?))
                .arg("--listen-address=127.0.0.1")
                .arg("--trust-domain=localhost")
                .arg(format!("--issuer-credentials={}", credentials.display()))
                .arg(format!("--config={}", empty.display()))
                .stdout(Stdio::null())
                .spawn()?,
        );
        let path = credentials.join("ca.crt");
        let anchors = wait("the trust anchors", || {
            let text = fs::read_to_string(&path).ok()?;
            text.contains("END").then_some(text)
        })?;
        Ok(Sentry {
            port,
            anchors,
            _process: process,
        })
    }
}

/// What both sidecars have in common.
struct Sidecars<'a> {
    program: &'a Path,
    config: PathBuf,
    resources: PathBuf,
    sentry: &'a Sentry,
}

impl Sidecars<'_> {
    /// Returns the port of the HTTP API and the process.
    fn start(&self, app_id: &str, app_port: Option<u16>) -> Result<(u16, KilledOnDrop)> {
        let http = free_port()?;
        let child = Command::new(self.program)
            .arg(format!("--app-id={app_id}"))
            .args(app_port.map(|port| format!("--app-port={port}")))
            .arg(format!("--dapr-http-port={http}"))
            .arg(format!("--dapr-grpc-port={}", free_port()?))
            .arg(format!("--dapr-internal-grpc-port={}", free_port()?))
            .arg(format!("--metrics-port={}", free_port()?))
            .arg(format!("--resources-path={}", self.resources.display()))
            .arg(format!("--config={}", self.config.display()))
            .arg("--enable-mtls=true")
            .arg(format!("--sentry-address=127.0.0.1:{}", self.sentry.port))
            .arg("--control-plane-trust-domain=localhost")
            .env("DAPR_TRUST_ANCHORS", &self.sentry.anchors)
            .env("NAMESPACE", "default")
            .stdout(Stdio::null())
            .spawn()?;
        Ok((http, KilledOnDrop(child)))
    }
}

/// A child that ends with this value.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

// There is no runtime here that it could block.
#[allow(clippy::disallowed_methods)]
fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if start.elapsed() > LIMIT {
            bail!("waited {} s for {what} in vain", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn request(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
