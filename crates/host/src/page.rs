//! A very small HTTP server for pages about the process itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::{Tasks, listen};

pub(crate) struct Page {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: String,
}

/// Serves GET requests by `page`, called with the path, until the tasks stop.
pub(crate) async fn serve(
    host: &str,
    port: u16,
    tasks: &Tasks,
    page: impl Fn(&str) -> Page + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = listen::tcp(host, port).await?;
    let address = listener.local_addr()?;
    let page = Arc::new(page);
    let connections = tasks.clone();
    let stopping = tasks.stopping();
    tasks.spawn("page listener", async move {
        listen::accept(listener, stopping.clone(), |stream, _| {
            let page = page.clone();
            let stopping = stopping.clone();
            connections.spawn("page connection", async move {
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let answer = page(request.uri().path());
                    async move { respond(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = stopping.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
            });
            async {}
        })
        .await;
    });
    Ok(address)
}

fn respond(page: Page) -> Result<Response<Full<Bytes>>, http::Error> {
    Response::builder()
        .status(page.status)
        .header(header::CONTENT_TYPE, page.content_type)
        .body(Full::new(Bytes::from(page.body)))
}
