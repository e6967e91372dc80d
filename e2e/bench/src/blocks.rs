//! Three sidecars of one binary: one with a component of each further building
//! block, one that traces every request, one with a middleware.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use bytes::Bytes;
use http::Method;
use outrider_harness::{Builder, Daprd, HttpApp, Redis};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::load::Shot;
use crate::row::{self, Ends, Row};

/// An encrypted document takes longer than a call: fewer at once.
const FEW: usize = 2;
const DOCUMENT: usize = 1 << 20;

pub struct Blocks {
    all: Daprd,
    traced: Daprd,
    limited: Daprd,
    backend: Backend,
    /// Takes the spans.
    _collector: HttpApp,
    _redis: Redis,
    _keys: TempDir,
}

/// A component whose settings are one line of YAML. A binary that does not have
/// its type goes without.
fn component(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, version: v1, ignoreErrors: true, metadata: [{metadata}]}}\n"
    )
}

fn setting(name: &str, value: &str) -> String {
    format!("{{name: {name}, value: '{value}'}}")
}

impl Blocks {
    pub async fn start(path: &Path, index: usize) -> Result<Self> {
        let backend = Backend::start().await?;
        let redis = Redis::start().await?;
        let redis = redis.context("the rows of building blocks need redis-server")?;
        redis.command(&["SET", "k", "v||1"]).await?;
        let keys = tempfile::tempdir()?;
        std::fs::write(keys.path().join("key"), [7; 32])?;
        let accepted = Router::new()
            .fallback(async |_: Bytes| http::StatusCode::ACCEPTED)
            .layer(DefaultBodyLimit::disable());
        let collector = HttpApp::streaming(accepted).await?;
        let builder = |name: &str| -> Builder {
            Daprd::builder()
                .binary(path)
                .app_id(&format!("{name}-{}-{index}", std::process::id()))
                .mdns()
                .app(&backend.app)
                .flag("--log-level=error")
        };
        let folder = keys.path().display().to_string();
        let server = setting("redisHost", &format!("127.0.0.1:{}", redis.port()));
        let url = format!("http://127.0.0.1:{}/get", backend.app.port());
        let all = builder("blocks")
            .resource(&component("out", "bindings.http", &setting("url", &url)))
            .resource(&component("settings", "configuration.redis", &server))
            .resource(&component("locks", "lock.redis", &server))
            .resource(&component("echo", "conversation.echo", ""))
            .resource(&component(
                "keys",
                "crypto.dapr.localstorage",
                &setting("path", &folder),
            ));
        let spans = format!("http://127.0.0.1:{}/spans", collector.port());
        let traced = builder("traced").config(&format!(
            "{{tracing: {{samplingRate: '1', zipkin: {{endpointAddress: '{spans}'}}}}}}"
        ));
        let limited = builder("limited")
            .resource(&component(
                "limit",
                "middleware.http.ratelimit",
                &setting("maxRequestsPerSecond", "100000000"),
            ))
            .config("{httpPipeline: {handlers: [{name: limit, type: middleware.http.ratelimit}]}}");
        Ok(Self {
            all: all.start().await?,
            traced: traced.start().await?,
            limited: limited.start().await?,
            backend,
            _collector: collector,
            _redis: redis,
            _keys: keys,
        })
    }

    /// The rows that the binary has components for, by name.
    pub async fn rows(
        &self,
        connections: usize,
        time: Duration,
    ) -> Result<Vec<(&'static str, f64)>> {
        let port = self.all.http_port();
        let shot = |method: Method, path: &str, body: &'static str| Shot {
            method,
            ..Shot::post(port, path.to_owned(), Bytes::from_static(body.as_bytes()))
        };
        let lock = r#"{"resourceId":"r","lockOwner":"o","expiryInSeconds":3600}"#;
        let document = Shot {
            method: Method::PUT,
            headers: vec![
                ("dapr-key-name", "key".to_owned()),
                ("dapr-key-wrap-algorithm", "A256KW".to_owned()),
            ],
            ..Shot::post(
                port,
                "/v1.0-alpha1/crypto/keys/encrypt".into(),
                vec![b'x'; DOCUMENT].into(),
            )
        };
        let mut rows = Vec::new();
        for (name, shot, ends, connections) in [
            (
                "binding bindings.http",
                shot(Method::POST, "/v1.0/bindings/out", r#"{"operation":"get"}"#),
                Ends::Call,
                connections,
            ),
            (
                "configuration.redis get",
                shot(Method::GET, "/v1.0/configuration/settings?key=k", ""),
                Ends::Sidecar,
                connections,
            ),
            (
                "lock.redis, already held",
                shot(Method::POST, "/v1.0-alpha1/lock/locks", lock),
                Ends::Sidecar,
                connections,
            ),
            (
                "conversation.echo",
                shot(
                    Method::POST,
                    "/v1.0-alpha1/conversation/echo/converse",
                    r#"{"inputs":[{"content":"hi"}]}"#,
                ),
                Ends::Sidecar,
                connections,
            ),
            ("encrypt 1 MiB", document, Ends::Sidecar, FEW),
        ] {
            if let Some(row) = self
                .row(&self.all, name, shot, ends, connections, time)
                .await?
            {
                rows.push((name, row.cpu));
            }
        }
        for (name, daprd) in [
            ("local invoke", &self.all),
            ("local invoke, every one traced", &self.traced),
            ("local invoke through ratelimit", &self.limited),
        ] {
            let path = format!("/v1.0/invoke/{}/method/get", daprd.app_id());
            let shot = Shot::get(daprd.http_port(), path);
            let row = self
                .row(daprd, name, shot, Ends::Call, connections, time)
                .await?;
            rows.push((name, row.with_context(|| format!("{name} is refused"))?.cpu));
        }
        Ok(rows)
    }

    /// None where the binary refuses it.
    async fn row(
        &self,
        daprd: &Daprd,
        name: &str,
        shot: Shot,
        ends: Ends,
        connections: usize,
        time: Duration,
    ) -> Result<Option<Row>> {
        let mut request = http::Request::builder()
            .method(&shot.method)
            .uri(&shot.path)
            .header("content-type", "application/json");
        for (name, value) in &shot.headers {
            request = request.header(*name, value);
        }
        let request = request.body(shot.body.clone().into())?;
        // The first lock is not held yet.
        for _ in 0..2 {
            let answer = daprd.http().send(request.clone()).await?;
            if answer.status >= 400 {
                eprintln!("no row for {name}: {} {}", answer.status, answer.text());
                return Ok(None);
            }
        }
        let answer = daprd.http().send(request).await?;
        let shot = Shot {
            status: answer.status,
            // Nonces and ids make some answers differ.
            answer: (ends == Ends::Call).then_some(answer.body),
            ..shot
        };
        let path = row::Path {
            processes: &[daprd.id()],
            backend: &self.backend,
        };
        Ok(Some(path.row(&shot, ends, connections, time).await?))
    }
}
