use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::unverified::channel;

/// A certificate authority, for hosts outside or for a control plane.
pub struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
}

fn authority() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl Authority {
    pub fn new() -> Result<Authority> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Authority {
            root: CertifiedIssuer::self_signed(authority()?, key)?,
        })
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.root.pem()
    }

    /// A certificate for this name, and its key, as PEM.
    pub fn issue(&self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = CertificateParams::new(vec![name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.root)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// What a sentry under this authority needs, with an issuer of its own.
    pub fn credentials(&self) -> Result<[(&'static str, String); 3]> {
        let mut params = authority()?;
        params.distinguished_name.push(DnType::CommonName, "issuer");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer = params.signed_by(&key, &self.root)?;
        Ok([
            ("ca.crt", self.pem()),
            ("issuer.crt", issuer.pem()),
            ("issuer.key", key.serialize_pem()),
        ])
    }

    /// The certificate of a SPIFFE id until this time, and its key, as PEM.
    pub fn identify(&self, id: &str, end: OffsetDateTime) -> Result<(String, String)> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = end - time::Duration::DAY;
        params.not_after = end;
        let certificate = params.signed_by(&key, &self.root)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A connection to a server of this authority on this machine; `identity` is
    /// the certificate and key of the client.
    pub async fn dial(
        &self,
        name: &'static str,
        port: u16,
        identity: Option<(String, String)>,
    ) -> Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector
            .connect(ServerName::try_from(name)?, socket)
            .await?)
    }

    /// The same for gRPC.
    pub async fn channel(
        &self,
        name: &'static str,
        port: u16,
        identity: Option<(String, String)>,
    ) -> Result<Channel> {
        channel(self.dial(name, port, identity).await?).await
    }

    /// What a server for `localhost` needs. With `clients` it wants
    /// certificates of this authority from its clients.
    pub fn server(&self, clients: bool) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes())?)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.issue("localhost")?;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
