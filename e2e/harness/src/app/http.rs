use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A request that the application got.
#[derive(Debug, Clone)]
pub struct Seen {
    pub version: Version,
    pub method: String,
    /// Of HTTP/2, where it is no header.
    pub authority: Option<String>,
    /// Path and query, as they were sent.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Record = Arc<Mutex<Vec<Seen>>>;

/// An application that answers with a router and records its requests.
#[derive(Debug)]
pub struct HttpApp {
    port: u16,
    seen: Record,
    _server: JoinSet<()>,
}

impl HttpApp {
    pub async fn start(router: Router) -> Result<HttpApp> {
        HttpApp::at(crate::port::free(), router).await
    }

    /// The same at a port that was chosen before.
    pub async fn at(port: u16, router: Router) -> Result<HttpApp> {
        let seen = Record::default();
        let record = middleware::from_fn_with_state(Arc::clone(&seen), record);
        HttpApp::serve(port, router.layer(record), seen).await
    }

    /// The same over TLS.
    pub async fn over_tls(router: Router, config: Arc<rustls::ServerConfig>) -> Result<HttpApp> {
        let seen = Record::default();
        let record = middleware::from_fn_with_state(Arc::clone(&seen), record);
        let service = TowerToHyperService::new(router.layer(record));
        let port = crate::port::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let acceptor = TlsAcceptor::from(config);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(socket).await {
                        let builder = auto::Builder::new(TokioExecutor::new());
                        let _ = builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    }
                });
            }
        });
        Ok(HttpApp {
            port,
            seen,
            _server: server,
        })
    }

    /// The same without a record, so that request bodies reach the router as
    /// they come.
    pub async fn streaming(router: Router) -> Result<HttpApp> {
        HttpApp::serve(crate::port::free(), router, Record::default()).await
    }

    async fn serve(port: u16, router: Router, seen: Record) -> Result<HttpApp> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(HttpApp {
            port,
            seen,
            _server: server,
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests so far, on paths that do not start with `/dapr/`.
    pub fn seen(&self) -> Vec<Seen> {
        let all = self.lock();
        all.iter()
            .filter(|seen| !seen.target.starts_with("/dapr/"))
            .cloned()
            .collect()
    }

    /// The latest of [`HttpApp::seen`].
    pub fn last(&self) -> Option<Seen> {
        self.seen().pop()
    }
}

async fn record(State(record): State<Record>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let target = parts.uri.path_and_query();
    let seen = Seen {
        version: parts.version,
        method: parts.method.to_string(),
        authority: parts.uri.authority().map(ToString::to_string),
        target: target.map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers.clone(),
        body: body.clone(),
    };
    record
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen);
    next.run(Request::from_parts(parts, Body::from(body))).await
}
