//! Whether a chain of certificates proves a SPIFFE id: X509-SVID, section 5
//! (<https://spiffe.io/docs/latest/spiffe-specs/x509-svid/>).

use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::anchors::Roots;
use crate::id::{Invalid, SpiffeId};

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("the peer presented no certificate")]
    Empty,
    #[error("the certificate cannot be parsed: {0}")]
    Malformed(String),
    #[error("leaf certificate must not be a CA")]
    Ca,
    #[error("leaf certificate must not sign certificates or revocation lists")]
    SigningKeyUsage,
    #[error("leaf certificate must have exactly one SPIFFE id, it has {0} URI names")]
    UriNames(usize),
    #[error("leaf certificate has a malformed SPIFFE id: {0}")]
    Id(#[from] Invalid),
    #[error("no trust anchor is valid at this time")]
    NoValidAnchor,
    #[error("the chain does not lead to a trust anchor: {0}")]
    Untrusted(webpki::Error),
}

/// The SPIFFE id of a leaf certificate, whatever signed it.
pub fn id_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, Error> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|e| Error::Malformed(e.to_string()))?;
    let malformed = |e: x509_parser::error::X509Error| Error::Malformed(e.to_string());
    if let Some(constraints) = leaf.basic_constraints().map_err(malformed)?
        && constraints.value.ca
    {
        return Err(Error::Ca);
    }
    if let Some(usage) = leaf.key_usage().map_err(malformed)?
        && (usage.value.key_cert_sign() || usage.value.crl_sign())
    {
        return Err(Error::SigningKeyUsage);
    }
    let names = leaf.subject_alternative_name().map_err(malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|n| &n.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(Error::UriNames(uris.len())),
    }
}

/// How long a leaf certificate is good. Its last second counts (RFC 5280,
/// section 4.1.2.5).
pub fn time_left(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<Duration, Error> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|e| Error::Malformed(e.to_string()))?;
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
    Ok(Duration::from_secs((end + 1).saturating_sub(now.as_secs())))
}

/// Verifies `chain`, leaf first, and returns the id it proves.
pub fn verify(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    now: UnixTime,
) -> Result<SpiffeId, Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::Empty)?;
    let id = id_of(leaf)?;
    let anchors = roots.valid_at(now);
    if anchors.is_empty() {
        return Err(Error::NoValidAnchor);
    }
    webpki::EndEntityCert::try_from(leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                aws_lc_rs::default_provider()
                    .signature_verification_algorithms
                    .all,
                &anchors,
                intermediates,
                now,
                AnyUsage,
                None,
                None,
            )
            .map(drop)
        })
        .map_err(Error::Untrusted)?;
    Ok(id)
}

/// Extended key usage does not matter here: an identity serves and dials with one
/// certificate, and issuers may leave the extension out.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
