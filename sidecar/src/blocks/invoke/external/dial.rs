//! Connections to hosts outside the mesh: HTTP/1.1, or HTTP/2 where TLS has
//! agreed on it.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use outrider_security::pem;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Sleep;
use tokio_rustls::TlsConnector;

use outrider_call::channel::connect::Stream;
use outrider_call::channel::tls;
use outrider_net::body;
use outrider_net::grpc;

/// What a connection may take, and after it a handshake.
const DIAL_LIMIT: Duration = Duration::from_secs(15);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);

/// Whom to trust, and what to show.
#[derive(Default)]
pub struct Tls {
    /// None for the roots of the system.
    roots: Option<Vec<CertificateDer<'static>>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Tls {
    /// Reads PEM texts; an empty one is none.
    pub fn read(root_ca: &str, certificate: &str, private_key: &str) -> Result<Self, String> {
        let roots = match root_ca {
            "" => None,
            pem => Some(
                pem::certificates(pem.as_bytes())
                    .map_err(|cause| format!("failed to add root cert to cert pool: {cause}"))?,
            ),
        };
        let identity = match (certificate, private_key) {
            ("", "") => None,
            ("", _) | (_, "") => {
                return Err(
                    "failed to load client certificate: certificate and private key belong together"
                        .to_owned(),
                );
            }
            (certificate, key) => {
                let wrong = |cause: &dyn std::fmt::Display| {
                    format!("failed to load client certificate: {cause}")
                };
                let chain = pem::certificates(certificate.as_bytes()).map_err(|e| wrong(&e))?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| wrong(&e))?;
                Some((chain, key))
            }
        };
        let tls = Self { roots, identity };
        // A key that does not fit is found now rather than with the first call.
        if tls.roots.is_some() || tls.identity.is_some() {
            tls.config(RootCertStore::empty())
                .map_err(|cause| format!("failed to load client certificate: {cause}"))?;
        }
        Ok(tls)
    }

    fn config(&self, roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Reads the roots of the system, if those are wanted.
    fn connector(&self) -> io::Result<TlsConnector> {
        let certificates = match &self.roots {
            Some(roots) => roots.clone(),
            None => {
                let found = rustls_native_certs::load_native_certs();
                if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
                    return Err(io::Error::other(format!(
                        "the system's root certificates cannot be read: {error}"
                    )));
                }
                found.certs
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        let config = self.config(roots).map_err(io::Error::other)?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Dials whatever a URL names.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<Tls>,
    /// Made when it is first needed.
    connector: Arc<OnceCell<TlsConnector>>,
    tls_errors: TlsErrors,
}

impl Dialer {
    pub fn new(tls: Tls) -> Self {
        Self {
            tls: Arc::new(tls),
            connector: Arc::default(),
            tls_errors: Arc::default(),
        }
    }

    /// Why a call came to nothing, in the words that Go's client has for it.
    pub fn explain(&self, uri: &Uri, error: &legacy::Error) -> String {
        let refusal = || {
            let mut tls_errors = self.tls_errors.lock().unwrap_or_else(|e| e.into_inner());
            tls_errors.remove(&authority(uri))
        };
        for inner in grpc::causes(error) {
            if let Some(read) = inner.downcast_ref::<body::ReadError>() {
                return read.to_string();
            }
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                if let Some(text) = tls::of_io(io) {
                    return text;
                }
                // Of the dialer.
                if error.is_connect() && io.get_ref().is_some() {
                    return io.to_string();
                }
            }
        }
        let refused = (!error.is_connect()).then(refusal).flatten();
        refused.unwrap_or_else(|| outrider_kit::error::chain(error))
    }

    async fn dial(self, uri: Uri) -> io::Result<Stream> {
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let connecting = TcpStream::connect((bare, port));
        let socket = tokio::time::timeout(DIAL_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")))
            .map_err(|cause| dial_error(host, port, &cause))?;
        socket.set_nodelay(true)?;
        if !is_tls {
            return Ok(Stream::Plain(socket));
        }
        let connector = self
            .connector
            .get_or_try_init(|| async {
                let tls = self.tls.clone();
                let reading = tokio::task::spawn_blocking(move || tls.connector());
                reading.await.map_err(io::Error::other)?
            })
            .await?;
        let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
        let shaking = connector.connect(name, socket);
        let stream = tokio::time::timeout(HANDSHAKE_LIMIT, shaking)
            .await
            .map_err(|_| io::Error::other("net/http: TLS handshake timeout"))??;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn dial_error(host: &str, port: u16, cause: &io::Error) -> io::Error {
    let text = match cause.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {host}:{port}: connect: connection refused")
        }
        // The only errors without a number of the system are those of names.
        _ if cause.raw_os_error().is_none() && cause.kind() != io::ErrorKind::TimedOut => {
            format!("dial tcp: lookup {host}: no such host")
        }
        _ => format!("dial tcp {host}:{port}: {cause}"),
    };
    io::Error::new(cause.kind(), text)
}

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Watched>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let (host, tls_errors) = (authority(&uri), dialer.tls_errors.clone());
            let stream = dialer.dial(uri).await?;
            Ok(TokioIo::new(Watched {
                stream,
                host,
                tls_errors,
                is_over: false,
                moment: None,
            }))
        })
    }
}

fn authority(uri: &Uri) -> String {
    uri.authority().map_or(String::new(), ToString::to_string)
}

/// Why hosts broke off TLS, by host. With TLS 1.3 a client learns only after
/// the handshake that its certificate is not taken, and what reads the
/// connection then is not what sends the request.
type TlsErrors = Arc<Mutex<HashMap<String, String>>>;

/// How long what was sent before a connection broke is waited for.
const MOMENT: Duration = Duration::from_millis(100);
/// Hosts whose error is kept until somebody asks for it.
const MOST_TLS_ERRORS: usize = 64;

/// A connection that remembers why it was broken off.
pub struct Watched {
    stream: Stream,
    host: String,
    tls_errors: TlsErrors,
    /// Nothing more will be read.
    is_over: bool,
    moment: Option<Pin<Box<Sleep>>>,
}

impl Connection for Watched {
    fn connected(&self) -> Connected {
        match self.stream.is_http2() {
            true => Connected::new().negotiated_h2(),
            false => Connected::new(),
        }
    }
}

impl Watched {
    fn remember(&self, error: &io::Error) {
        let Some(text) = tls::of_io(error) else {
            return;
        };
        let mut tls_errors = self.tls_errors.lock().unwrap_or_else(|e| e.into_inner());
        if tls_errors.len() >= MOST_TLS_ERRORS {
            tls_errors.clear();
        }
        tls_errors.insert(self.host.clone(), text);
    }

    /// Passes on how writing went. Where it failed, the reason may have been
    /// sent before and is about to be read: it gets a moment.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) if !self.is_over => {
                let moment = self
                    .moment
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(MOMENT)));
                ready!(moment.as_mut().poll(context));
                Poll::Ready(Err(error))
            }
            polled => polled,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Err(error)) => {
                this.is_over = true;
                this.remember(error);
            }
            Poll::Ready(Ok(())) => this.is_over = buffer.filled().len() == before,
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        this.written(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
