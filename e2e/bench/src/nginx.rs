//! Two nginx in a row on the path of an invocation: what proxies that only copy
//! cost on this machine, and so the limit for two sidecars.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use outrider_harness::http::Client;
use outrider_harness::{Process, port, wait};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::load::Shot;
use crate::row::{self, Ends, Row};
use crate::{measure, pair};

/// Of the certificate of the second one.
const NAME: &str = "localhost";
/// Paths that an nginx answers by itself: as state that is read, and that is saved.
const READ: &str = "/read";
const SAVED: &str = "/saved";

pub struct Proxies {
    port: u16,
    /// Masters and workers of both.
    processes: Vec<u32>,
    backend: Backend,
    _running: [Process; 2],
    _folder: TempDir,
}

/// As many as a sidecar has workers.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(8))
}

pub fn version() -> Result<String> {
    let output = Command::new("nginx").arg("-v").output().context(
        "nginx is not installed: cargo xtask bench does it, or --no-limit leaves it out",
    )?;
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    Ok(text
        .strip_prefix("nginx version: ")
        .unwrap_or(text)
        .to_owned())
}

impl Proxies {
    /// With certificates on both sides of the connection between the two if
    /// `mtls`.
    pub async fn start(mtls: bool) -> Result<Proxies> {
        let backend = Backend::start().await?;
        let folder = tempfile::tempdir()?;
        let (first, second) = (port::free(), port::free());
        if mtls {
            certificates(folder.path())?;
        }
        let app = backend.app.port();
        let back = nginx(folder.path(), "back", &server(second, app, mtls, false))?;
        let front = nginx(folder.path(), "front", &server(first, second, false, mtls))?;
        let client = Client::new(first);
        wait::until("nginx answers", || async {
            let answer = client.request(Method::GET, "/get", "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        let mut processes = Vec::new();
        for master in [&front, &back] {
            let children = measure::children(master.id())?;
            ensure!(
                children.len() == workers(),
                "nginx has {} workers",
                children.len()
            );
            processes.push(master.id());
            processes.extend(children);
        }
        Ok(Proxies {
            port: first,
            processes,
            backend,
            _running: [front, back],
            _folder: folder,
        })
    }

    fn path(&self) -> row::Path<'_> {
        row::Path {
            processes: &self.processes,
            backend: &self.backend,
        }
    }

    pub async fn get(&self, connections: usize, time: Duration) -> Result<Row> {
        let path = self.path();
        path.get(self.port, "/get".into(), connections, time).await
    }

    pub async fn echo(&self, connections: usize, time: Duration) -> Result<Row> {
        let path = self.path();
        path.echo(self.port, "/echo".into(), connections, time)
            .await
    }

    /// What the first one answers by itself costs one server, and no less than that
    /// a sidecar that answers from memory.
    pub async fn state_get(&self, connections: usize, time: Duration) -> Result<Row> {
        let shot = Shot {
            answer: Some(pair::VALUE.into()),
            ..Shot::get(self.port, READ.into())
        };
        let path = self.path();
        path.row(&shot, Ends::Sidecar, connections, time).await
    }

    pub async fn state_save(&self, connections: usize, time: Duration) -> Result<Row> {
        let shot = Shot {
            status: 204,
            ..Shot::post(self.port, SAVED.into(), pair::ITEM.into())
        };
        let path = self.path();
        path.row(&shot, Ends::Sidecar, connections, time).await
    }
}

/// Starts one whose files are in `folder`.
fn nginx(folder: &Path, name: &str, server: &str) -> Result<Process> {
    let config = folder.join(format!("{name}.conf"));
    std::fs::write(&config, configuration(folder, name, server))?;
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg(folder.join(format!("{name}.log")))
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(&config);
    Process::start(&format!("nginx ({name})"), &mut command)
}

/// Connections are kept on both sides, for as long as the benchmark lasts.
fn configuration(folder: &Path, name: &str, server: &str) -> String {
    let folder = folder.display();
    // Workers read the certificates as root, where the master is that.
    let user = match rustix::process::geteuid().is_root() {
        true => "user root;\n",
        false => "",
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {folder}/{name}-{kind};\n"))
        .collect();
    format!(
        "{user}daemon off;
worker_processes {};
pid {folder}/{name}.pid;
events {{ worker_connections 1024; }}
http {{
access_log off;
keepalive_requests 1000000000;
keepalive_timeout 1h;
{temporary}{server}
}}
",
        workers()
    )
}

/// Copies from a port to the next.
fn server(from: u16, to: u16, from_tls: bool, to_tls: bool) -> String {
    let (listen, served) = match from_tls {
        true => (
            " ssl",
            "ssl_protocols TLSv1.3;
ssl_certificate server.crt;
ssl_certificate_key server.key;
ssl_client_certificate ca.crt;
ssl_verify_client on;
",
        ),
        false => ("", ""),
    };
    let (scheme, called) = match to_tls {
        true => (
            "https",
            "proxy_ssl_protocols TLSv1.3;
proxy_ssl_certificate client.crt;
proxy_ssl_certificate_key client.key;
proxy_ssl_trusted_certificate ca.crt;
proxy_ssl_verify on;
proxy_ssl_name localhost;
",
        ),
        false => ("http", ""),
    };
    format!(
        "upstream next {{
server 127.0.0.1:{to};
keepalive 64;
keepalive_requests 1000000000;
keepalive_timeout 1h;
}}
server {{
listen 127.0.0.1:{from}{listen};
{served}location / {{
proxy_pass {scheme}://next;
proxy_http_version 1.1;
proxy_set_header Connection \"\";
{called}}}
location {READ} {{
default_type application/json;
return 200 '{value}';
}}
location {SAVED} {{
return 204;
}}
}}",
        value = pair::VALUE
    )
}

/// An authority, a server and a client, with keys as Dapr's: ECDSA P-256.
fn certificates(folder: &Path) -> Result<()> {
    let named = |name: &str| -> Result<CertificateParams> {
        let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params)
    };
    let mut authority = named("authority")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    std::fs::write(folder.join("ca.crt"), authority.pem())?;
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let certificate = named(name)?.signed_by(&key, &authority)?;
        std::fs::write(folder.join(format!("{name}.crt")), certificate.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_asked_for_only_between_the_two() {
        let (front, back) = (server(1, 2, false, true), server(2, 3, true, false));
        assert!(front.contains("listen 127.0.0.1:1;") && front.contains("https://next"));
        assert!(back.contains("listen 127.0.0.1:2 ssl;") && back.contains("http://next"));
        let plain = server(1, 2, false, false);
        assert!(!plain.contains("ssl"));
    }
}
