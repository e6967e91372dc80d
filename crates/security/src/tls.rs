//! rustls configurations whose certificates and trust anchors are looked up at
//! each handshake. Peers are checked by SPIFFE id, never by host name.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::anchors::TrustAnchors;
use crate::chain;
use crate::id::{SpiffeId, TrustDomain};
use crate::identity::Identity;

/// Which peer is accepted, once its chain is found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any SPIFFE id under the trust anchors.
    Any,
    /// Exactly this id.
    Id(SpiffeId),
    /// One of these ids.
    AnyOf(Vec<SpiffeId>),
    /// Any id of this trust domain.
    TrustDomain(TrustDomain),
    /// This application, in whatever trust domain.
    Workload { namespace: String, app_id: String },
}

impl Expected {
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Any => true,
            Self::Id(expected) => id == expected,
            Self::AnyOf(expected) => expected.contains(id),
            Self::TrustDomain(expected) => id.trust_domain_str() == expected.as_str(),
            Self::Workload { namespace, app_id } => id
                .path()
                .strip_prefix("/ns/")
                .and_then(|rest| rest.strip_prefix(namespace.as_str()))
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| rest == app_id),
        }
    }
}

/// What a server asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// No certificate is asked for.
    Anonymous,
    /// A certificate is required, with an id that is accepted.
    Required(Expected),
}

pub(crate) fn server_config(
    anchors: &TrustAnchors,
    identity: &Identity,
    clients: Clients,
    protocols: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        Clients::Anonymous => builder.with_no_client_auth(),
        Clients::Required(expected) => builder.with_client_cert_verifier(Arc::new(Verifier {
            anchors: anchors.clone(),
            expected,
            provider,
        })),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Presenter(identity.clone())));
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    // A resumed session would keep an id that was verified by older anchors.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Without an `identity` no client certificate is presented.
pub(crate) fn client_config(
    anchors: &TrustAnchors,
    identity: Option<&Identity>,
    expected: Expected,
    protocols: &[&[u8]],
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier {
            anchors: anchors.clone(),
            expected,
            provider,
        }));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Presenter(identity.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Presents the certificate that is current at the handshake.
#[derive(Debug)]
struct Presenter(Identity);

impl ResolvesServerCert for Presenter {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().certified_key())
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

struct Verifier {
    anchors: TrustAnchors,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let mut presented = Vec::with_capacity(1 + intermediates.len());
        presented.push(leaf.clone());
        presented.extend(intermediates.iter().cloned());
        let id = chain::verify(&presented, &self.anchors.current(), now).map_err(tls_error)?;
        if self.expected.accepts(&id) {
            return Ok(());
        }
        let expected = match &self.expected {
            Expected::Id(id) => format!(", expected \"{id}\""),
            Expected::Workload { namespace, app_id } => {
                format!(", expected the path \"/ns/{namespace}/{app_id}\"")
            }
            Expected::Any | Expected::AnyOf(_) | Expected::TrustDomain(_) => String::new(),
        };
        Err(rustls::Error::General(format!(
            "unexpected SPIFFE ID: \"{id}\"{expected}"
        )))
    }
}

/// The alert sent to the peer follows from the kind of error.
fn tls_error(error: chain::Error) -> rustls::Error {
    use webpki::Error as W;
    match error {
        chain::Error::Untrusted(W::UnknownIssuer) => CertificateError::UnknownIssuer.into(),
        chain::Error::Untrusted(W::CertExpired { .. }) => CertificateError::Expired.into(),
        chain::Error::Untrusted(W::CertNotValidYet { .. }) => CertificateError::NotValidYet.into(),
        other => rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(
            Arc::new(Displayed(other)),
        ))),
    }
}

/// rustls prints causes by `Debug`; this makes it the readable text.
#[derive(thiserror::Error)]
#[error("{0}")]
struct Displayed(chain::Error);

impl std::fmt::Debug for Displayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// Empty: clients choose by themselves, and anchors may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

/// What gRPC is negotiated as.
pub(crate) const H2: &[&[u8]] = &[b"h2"];
/// How long a handshake may take before the connection is dropped.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
