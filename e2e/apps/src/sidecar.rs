//! The sidecar of an application, over plain HTTP, and what an application serves.

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

#[derive(Clone)]
pub struct Sidecar {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Sidecar {
    /// The one at `DAPR_HTTP_PORT` (3500) of this pod.
    pub fn from_env() -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: format!("http://127.0.0.1:{}", variable("DAPR_HTTP_PORT", "3500")),
        }
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let bytes = body.map_or(Bytes::new(), |b| Bytes::from(b.to_string()));
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(Full::new(bytes))?;
        let answer = self
            .client
            .request(request)
            .await
            .context("the sidecar does not answer")?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok((
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::String(text)),
        ))
    }
}

/// An environment variable, or what stands for an empty one.
pub fn variable(name: &str, default: &str) -> String {
    let given = std::env::var(name).ok().filter(|v| !v.is_empty());
    given.unwrap_or_else(|| default.to_owned())
}

/// Serves on `APP_PORT` (8080) until the pod ends.
pub async fn serve(name: &str, routes: Router) -> Result<()> {
    let port = variable("APP_PORT", "8080");
    let port: u16 = port.parse().context("APP_PORT is not a port")?;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("cannot listen on port {port}"))?;
    println!("{name} listens on port {port}");
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            end.recv().await;
        })
        .await?;
    Ok(())
}
