//! A very small HTTP server for pages about the process itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use outrider_security::Acceptor;
use tower::service_fn;

use crate::server::{self, Limits, Received};
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
    let service = service_fn(move |request: http::Request<Received>| {
        std::future::ready(Ok(respond(page(request.uri().path()))))
    });
    let owner = tasks.clone();
    tasks.spawn("page listener", async move {
        let plaintext = Acceptor::plaintext();
        server::serve("pages", listener, plaintext, Limits::PAGES, service, &owner).await;
    });
    Ok(address)
}

fn respond(page: Page) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(page.body));
    *answer.status_mut() = page.status;
    let content_type = HeaderValue::from_static(page.content_type);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    answer
}
