//! How a server is reached.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use outrider_components::{Error, Secret};
use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Certificates and the key, in PEM.
#[derive(Debug, Clone, Default)]
pub struct Pem {
    pub authority: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<Secret>,
}

/// Where a server is, and as whom to connect.
#[derive(Clone)]
pub struct Settings {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub client_id: String,
    pub clean_session: bool,
}

impl Settings {
    /// Reads a URL such as `mqtt://user:password@host:port`.
    pub fn new(url: &str, pem: &Pem) -> Result<Settings, Error> {
        let wrong = |what: &str| Error::invalid(format!("invalid url: {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let has_tls = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" | "tcps" | "tls" => true,
            other => return Err(wrong(&format!("the scheme {other} is not supported"))),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| wrong("no such port"))?)
            }
            _ => (address, if has_tls { 8883 } else { 1883 }),
        };
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(|text| text.into_owned())
                .map_err(|_| wrong("it is not UTF-8"))
        };
        let given = |text: &str| match text {
            "" => Ok(None),
            text => decoded(text).map(Some),
        };
        Ok(Settings {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls: if has_tls {
                Some(Arc::new(pem.client_config()?))
            } else {
                None
            },
            user: given(user)?,
            password: given(password)?.map(Secret),
            client_id: String::new(),
            clean_session: false,
        })
    }

    /// Connects, without a word of MQTT.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            };
            let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(tls.clone())
                .connect(name, stream)
                .await?;
            Ok(Box::new(stream) as _)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Pem {
    /// The system's certificates are trusted where no others are given.
    fn client_config(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        match &self.authority {
            Some(pem) => {
                for certificate in certificates(pem, "ca certificate")? {
                    roots
                        .add(certificate)
                        .map_err(|_| Error::invalid("invalid ca certificate"))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(error.to_string()))?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(certificate, "client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key.0.as_bytes())
            .map_err(|_| Error::invalid("invalid client certificate key"))?;
        config
            .with_client_auth_cert(chain, key)
            .map_err(|error| Error::invalid(format!("invalid client certificate: {error}")))
    }
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| Error::invalid(format!("invalid {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let read = |url: &str| Settings::new(url, &Pem::default());
        let settings = read("mqtt://me:p%40ss@db.example:77").expect("is right");
        assert_eq!((&*settings.host, settings.port), ("db.example", 77));
        assert_eq!(settings.user.as_deref(), Some("me"));
        assert_eq!(settings.password.map(|p| p.0).as_deref(), Some("p@ss"));
        assert!(settings.tls.is_none());
        let settings = read("tcp://[::1]/").expect("is right");
        assert_eq!((&*settings.host, settings.port), ("::1", 1883));
        for url in ["host:1883", "ws://host", "tcp://host:x"] {
            assert!(read(url).is_err(), "{url}");
        }
        let pem = Pem {
            authority: Some("nothing".to_owned()),
            ..Pem::default()
        };
        let refused = Settings::new("ssl://host", &pem).err().expect("is wrong");
        assert_eq!(refused.to_string(), "invalid ca certificate");
    }
}
