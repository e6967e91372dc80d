//! `GET /healthz` for probes.

use std::io;
use std::net::SocketAddr;

use http::StatusCode;

use crate::page::{self, Page};
use crate::{Readiness, Tasks};

/// A page of JSON beside the health page: its status and text. None for other
/// paths than its own.
pub type JsonPage = Box<dyn Fn(&str) -> Option<(StatusCode, String)> + Send + Sync>;

/// Answers `/healthz` with 200 when ready, else with 503 and the names of the
/// parts that are not; any other path is for `more`, or 404.
pub async fn serve(
    host: &str,
    port: u16,
    readiness: Readiness,
    more: Option<JsonPage>,
    tasks: &Tasks,
) -> io::Result<SocketAddr> {
    page::serve(host, port, tasks, move |path| {
        if let Some((status, body)) = more.as_ref().and_then(|more| more(path)) {
            return Page {
                status,
                content_type: "application/json",
                body,
            };
        }
        let pending = readiness.pending();
        let (status, body) = match path {
            "/healthz" if pending.is_empty() => (StatusCode::OK, "ok".to_owned()),
            "/healthz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {}", pending.join(", ")),
            ),
            _ => (StatusCode::NOT_FOUND, String::new()),
        };
        Page {
            status,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    })
    .await
}
