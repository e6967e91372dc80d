//! The dialling side: a connector for tonic channels and hyper clients.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::anchors::TrustAnchors;
use crate::stream::Connection;
use crate::tls::{self, Expected, HANDSHAKE};

/// Dials `host:port`, with or without TLS. Give it to
/// `Endpoint::connect_with_connector`; the endpoint's scheme must be `http`,
/// because the connector does TLS itself.
#[derive(Clone)]
pub struct Connector(Option<TlsConnector>);

impl Connector {
    pub fn plaintext() -> Self {
        Self(None)
    }

    /// TLS to a gRPC server that must be `expected`, without showing who dials.
    pub fn anonymous(anchors: &TrustAnchors, expected: Expected) -> Result<Self, rustls::Error> {
        tls::client_config(anchors, None, expected, tls::H2).map(Self::tls)
    }

    pub(crate) fn tls(config: ClientConfig) -> Self {
        Self(Some(TlsConnector::from(Arc::new(config))))
    }

    pub fn is_tls(&self) -> bool {
        self.0.is_some()
    }

    pub async fn dial(&self, host: &str, port: u16) -> io::Result<Connection> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, port)).await?;
        self.secure(host, socket).await
    }

    /// Runs the handshake over a socket that is connected already. `host` is
    /// sent as the server name; only the SPIFFE id of the peer is checked.
    pub async fn secure(&self, host: &str, socket: TcpStream) -> io::Result<Connection> {
        socket.set_nodelay(true)?;
        let Some(tls) = &self.0 else {
            return Connection::plain(socket);
        };
        let name = ServerName::try_from(host.to_owned())
            .or_else(|_| ServerName::try_from("localhost"))
            .map_err(io::Error::other)?;
        let stream = tokio::time::timeout(HANDSHAKE, tls.connect(name, socket))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out"))??;
        let wanted = !tls.config().alpn_protocols.is_empty();
        if wanted && stream.get_ref().1.alpn_protocol().is_none() {
            return Err(io::Error::other(
                "cannot check peer: missing selected ALPN property",
            ));
        }
        Connection::secured(stream.into())
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let host = target
                .host()
                .ok_or_else(|| io::Error::other("the address names no host"))?;
            let port = target.port_u16().unwrap_or(443);
            this.dial(host, port).await.map(TokioIo::new)
        })
    }
}
