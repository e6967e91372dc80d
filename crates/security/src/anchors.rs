//! Trust anchors: the root certificates that every peer must chain to. There is
//! one set for all trust domains.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pem;

/// How often the file is read. The whole file is compared, by its path:
/// the kubelet swaps symbolic links under it, which events on it would miss.
const POLL: Duration = Duration::from_secs(1);

/// Where trust anchors come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// PEM text that never changes.
    Text(String),
    /// A PEM file that is waited for and then followed.
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("trust anchors are required")]
    Missing,
    #[error("trust anchors cannot be specified in both TrustAnchors and TrustAnchorsFile")]
    Both,
    #[error("failed to decode trust anchors: {0}")]
    Decode(#[from] pem::Error),
    #[error("failed to decode trust anchors: {0}")]
    Certificate(String),
}

impl Source {
    /// Chooses between a text and a file, exactly one of which must be given.
    pub fn choose(text: Option<String>, file: Option<PathBuf>) -> Result<Self, Error> {
        let text = text.filter(|t| !t.is_empty());
        match (text, file.filter(|f| !f.as_os_str().is_empty())) {
            (Some(_), Some(_)) => Err(Error::Both),
            (Some(text), None) => Ok(Self::Text(text)),
            (None, Some(file)) => Ok(Self::File(file)),
            (None, None) => Err(Error::Missing),
        }
    }
}

struct Anchor {
    trust: TrustAnchor<'static>,
    /// Unix seconds. The path builder does not look at a root's own validity.
    valid: std::ops::RangeInclusive<i64>,
}

/// One version of the trust anchors.
pub struct Roots {
    pem: String,
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<Anchor>,
}

impl Roots {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let certificates = pem::certificates(text.as_bytes())?;
        let mut anchors = Vec::with_capacity(certificates.len());
        for der in &certificates {
            let trust = webpki::anchor_from_trusted_cert(der)
                .map_err(|e| Error::Certificate(e.to_string()))?
                .to_owned();
            let (_, parsed) =
                X509Certificate::from_der(der).map_err(|e| Error::Certificate(e.to_string()))?;
            let validity = parsed.validity();
            anchors.push(Anchor {
                trust,
                valid: validity.not_before.timestamp()..=validity.not_after.timestamp(),
            });
        }
        Ok(Self {
            pem: text.to_owned(),
            certificates,
            anchors,
        })
    }

    /// The PEM text as it was given.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(crate) fn valid_at(&self, now: UnixTime) -> Vec<TrustAnchor<'_>> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let valid = self.anchors.iter().filter(|a| a.valid.contains(&now));
        valid.map(|a| a.trust.clone()).collect()
    }
}

/// The current trust anchors, shared by everything that verifies.
#[derive(Clone)]
pub struct TrustAnchors(Arc<watch::Sender<Arc<Roots>>>);

impl TrustAnchors {
    pub fn new(roots: Roots) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(roots))))
    }

    pub fn from_pem(text: &str) -> Result<Self, Error> {
        Roots::parse(text).map(Self::new)
    }

    pub fn current(&self) -> Arc<Roots> {
        self.0.borrow().clone()
    }

    pub fn replace(&self, roots: Roots) {
        self.0.send_replace(Arc::new(roots));
    }

    /// Notified of each change; its value is the newest version.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Roots>> {
        self.0.subscribe()
    }

    /// Loads from `source`, waiting for a file that is not there yet.
    pub(crate) async fn load(source: &Source) -> Result<Self, Error> {
        match source {
            Source::Text(text) => Self::from_pem(text),
            Source::File(path) => Self::from_pem(&wait_for(path).await),
        }
    }

    /// Follows `path` for as long as it is polled. A version that cannot be
    /// read or parsed is logged and the last good one stays.
    pub(crate) async fn follow(&self, path: &Path) -> Infallible {
        let mut seen = self.current().pem().to_owned();
        let mut failing = false;
        loop {
            tokio::time::sleep(POLL).await;
            let text = match tokio::fs::read_to_string(path).await {
                Ok(text) if text == seen => {
                    failing = false;
                    continue;
                }
                Ok(text) => text,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(target: "dapr.runtime.security", "failed to read trust anchors file: '{}': {error}; the former trust anchors stay in use", path.display());
                    }
                    continue;
                }
            };
            failing = false;
            tracing::info!(target: "dapr.runtime.security", "Trust anchors file changed, reloading trust anchors");
            match Roots::parse(&text) {
                Ok(roots) => self.replace(roots),
                Err(error) => {
                    tracing::error!(target: "dapr.runtime.security", "trust anchors file '{}': {error}; the former trust anchors stay in use", path.display());
                }
            }
            seen = text;
        }
    }
}

async fn wait_for(path: &Path) -> String {
    loop {
        match tokio::fs::read_to_string(path).await {
            Ok(text) if !text.trim().is_empty() => return text,
            Ok(_) => {
                tracing::warn!(target: "dapr.runtime.security", "Trust anchors file '{}' is empty, waiting...", path.display());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(target: "dapr.runtime.security", "Trust anchors file '{}' not found, waiting...", path.display());
            }
            Err(error) => {
                tracing::warn!(target: "dapr.runtime.security", "Trust anchors file '{}' cannot be read, waiting: {error}", path.display());
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
