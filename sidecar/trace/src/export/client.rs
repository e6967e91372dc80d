//! One connection to a collector, made again when it has ended. What the
//! collector answers is bounded.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_security::pem;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Bytes of an answer that are read.
const ANSWER: usize = 1 << 20;
/// Bytes of headers that an answer may have.
const HEADERS: usize = 64 << 10;

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub is_tls: bool,
    /// A file with the certificates to trust; none for those of the system.
    pub roots: Option<String>,
}

impl Endpoint {
    /// `host:port`, as a request names it.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    pub fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        let scheme = if self.is_tls { "https" } else { "http" };
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority())
            .path_and_query(path)
            .build()
    }
}

/// What a collector answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub trailers: HeaderMap,
    pub body: Bytes,
}

pub struct Client {
    pub endpoint: Endpoint,
    is_http2: bool,
    tls: Option<TlsConnector>,
    connection: Option<Connection>,
}

struct Connection {
    sender: Sender,
    /// What drives it, for as long as it is kept.
    _driver: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Client {
    pub fn new(endpoint: Endpoint, is_http2: bool) -> Self {
        Self {
            endpoint,
            is_http2,
            tls: None,
            connection: None,
        }
    }

    /// Sends one request. The connection is kept if it was answered.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let ready = match self.connection.take() {
            Some(mut kept) => kept.is_ready().await.then_some(kept),
            None => None,
        };
        let mut connection = match ready {
            Some(kept) => kept,
            None => self.connect().await.map_err(|e| {
                let address = self.endpoint.authority();
                format!("the collector at {address} cannot be reached: {e}")
            })?,
        };
        let answer = connection.exchange(request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn connect(&mut self) -> io::Result<Connection> {
        let target = (self.endpoint.host.as_str(), self.endpoint.port);
        let socket = TcpStream::connect(target).await?;
        socket.set_nodelay(true)?;
        let io: Box<dyn Io> = if self.endpoint.is_tls {
            let tls = match &self.tls {
                Some(tls) => tls.clone(),
                None => {
                    let roots = self.endpoint.roots.clone();
                    let is_http2 = self.is_http2;
                    let reading = tokio::task::spawn_blocking(move || connector(roots, is_http2));
                    let tls = reading.await.map_err(io::Error::other)??;
                    self.tls.insert(tls).clone()
                }
            };
            let name =
                ServerName::try_from(self.endpoint.host.clone()).map_err(io::Error::other)?;
            Box::new(tls.connect(name, socket).await?)
        } else {
            Box::new(socket)
        };
        let mut driver = JoinSet::new();
        let io = TokioIo::new(io);
        let sender = if self.is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(HEADERS as u32)
                .handshake(io)
                .await
                .map_err(io::Error::other)?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(HEADERS)
                .handshake(io)
                .await
                .map_err(io::Error::other)?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Connection {
            sender,
            _driver: driver,
        })
    }
}

impl Connection {
    async fn is_ready(&mut self) -> bool {
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        };
        ready.is_ok()
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let text = |error: &(dyn std::error::Error + 'static)| outrider_kit::error::chain(error);
        let answered = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        let (parts, body) = answered.map_err(|e| text(&e))?.into_parts();
        let collected = Limited::new(body, ANSWER).collect().await;
        let collected = collected.map_err(|e| text(e.as_ref()))?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            trailers: collected.trailers().cloned().unwrap_or_default(),
            body: collected.to_bytes(),
        })
    }
}

fn connector(roots: Option<String>, is_http2: bool) -> io::Result<TlsConnector> {
    let certificates = match &roots {
        Some(path) => pem::certificates(&std::fs::read(path)?).map_err(io::Error::other)?,
        None => {
            let found = rustls_native_certs::load_native_certs();
            if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
                let cause = format!("the system's root certificates cannot be read: {error}");
                return Err(io::Error::other(cause));
            }
            found.certs
        }
    };
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(store)
        .with_no_client_auth();
    let protocol: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
