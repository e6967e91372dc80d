//! The page that Prometheus scrapes.

use std::io;
use std::net::SocketAddr;

use http::StatusCode;
use outrider_telemetry::metrics::Registry;

use crate::Tasks;
use crate::page::{self, Page};

/// Serves the metrics at every path, as Dapr does.
pub async fn serve(
    host: &str,
    port: u16,
    registry: Registry,
    tasks: &Tasks,
) -> io::Result<SocketAddr> {
    page::serve(host, port, tasks, move |_| Page {
        status: StatusCode::OK,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body: registry.text(),
    })
    .await
}
