//! The certificates of the authority: generated, or read from the store.

use std::collections::HashSet;
use std::time::Duration;

use outrider_security::id::Invalid as InvalidId;
use outrider_security::{Roots, SpiffeId, TrustDomain, anchors, chain, pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Policy;
use super::issue::{PublicKey, Workload};

/// Root and issuer live for a year.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    pub root: String,
    /// The issuer's certificate, then any between it and a root.
    pub issuer: String,
    pub key: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// Why material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("failed to decode trust anchors: no certificates found")]
    NoRoots,
    #[error(transparent)]
    Roots(#[from] anchors::Error),
    #[error("certificate in trust anchor is not self-signed: {0}")]
    NotSelfSigned(String),
    #[error("{0}")]
    Issuer(#[from] pem::Error),
    #[error("certificate cannot be parsed: {0}")]
    Certificate(String),
    #[error("certificate chain is not valid")]
    BrokenChain,
    #[error("intermediate certificate is not valid for signing")]
    NotForSigning,
    #[error("issuer certificate has expired, at {0}: renew it")]
    Expired(String),
    #[error("issuer chain is empty after re-encoding")]
    EmptyChain,
    #[error("key is not PEM encoded")]
    KeyNotPem,
    #[error("unsupported block type {0}")]
    KeyBlock(String),
    #[error("failed to parse issuer key: {0}")]
    Key(rcgen::Error),
    #[error("issuer key does not match issuer certificate")]
    KeyMismatch,
    #[error("issuer chain does not belong to trust anchors: {0}")]
    Untrusted(chain::Error),
    #[error("{0}")]
    Sign(#[from] rcgen::Error),
    #[error("{0}")]
    Id(#[from] InvalidId),
}

/// A new root and an issuer under it. The root's key is not kept.
pub fn generate(
    trust_domain: &TrustDomain,
    namespace: &str,
    clock_skew: Duration,
) -> Result<Material, rcgen::Error> {
    let root_key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut root = authority(trust_domain.as_str(), clock_skew)?;
    root.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ];
    let root_pem = root.self_signed(&root_key)?.pem();
    let root = Issuer::new(root, root_key);

    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let name = format!("spiffe://{trust_domain}/ns/{namespace}/dapr-sentry");
    let mut issuer = authority(&name, clock_skew)?;
    issuer.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(Material {
        root: root_pem,
        issuer: issuer.signed_by(&key, &root)?.pem(),
        key: key.serialize_pem(),
    })
}

fn authority(organisation: &str, clock_skew: Duration) -> Result<CertificateParams, rcgen::Error> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, organisation);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = now - clock_skew;
    params.not_after = now + LIFE;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// Random, below 2^128.
pub(in crate::ca) fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Verified material.
pub struct Signer {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) has_key_id: bool,
    /// As it is stored, which others compare with.
    root_pem: String,
    chain_pem: String,
    root_expiry: i64,
    issuer_expiry: i64,
}

impl Signer {
    pub fn verified(material: &Material, policy: &Policy) -> Result<Self, Invalid> {
        let roots = Roots::parse(&material.root)?;
        let mut root_expiry = i64::MAX;
        for root in roots.certificates() {
            let root = parse(root)?;
            root.verify_signature(None)
                .map_err(|e| Invalid::NotSelfSigned(e.to_string()))?;
            root_expiry = root_expiry.min(root.validity().not_after.timestamp());
        }
        let (chain, issuer_expiry, has_key_id) = issuer_chain(&material.issuer)?;
        let key = private_key(&material.key)?;
        let first = parse(&chain[0])?;
        if first.validity().not_after.timestamp() < OffsetDateTime::now_utc().unix_timestamp() {
            return Err(Invalid::Expired(first.validity().not_after.to_string()));
        }
        if rcgen::PublicKeyData::subject_public_key_info(&key) != first.public_key().raw {
            return Err(Invalid::KeyMismatch);
        }
        let signer = Self {
            issuer: Issuer::from_ca_cert_der(&chain[0], key)?,
            has_key_id,
            root_pem: pem::encode_certificates(roots.certificates()),
            chain_pem: pem::encode_certificates(&chain),
            root_expiry,
            issuer_expiry,
        };
        signer.prove(&chain, &roots, policy)?;
        Ok(signer)
    }

    /// Signs a certificate and verifies it as a peer would.
    fn prove(
        &self,
        issuers: &[CertificateDer<'static>],
        roots: &Roots,
        policy: &Policy,
    ) -> Result<(), Invalid> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let id = SpiffeId::workload(&TrustDomain::public(), "default", "probe")?;
        let leaf = self.sign(&PublicKey::of(&key)?, &Workload::application(id), policy)?;
        let mut presented = vec![leaf.der];
        presented.extend(issuers.iter().cloned());
        chain::verify(&presented, roots, UnixTime::now()).map_err(Invalid::Untrusted)?;
        Ok(())
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    pub fn roots(&self) -> Result<Roots, Invalid> {
        Ok(Roots::parse(&self.root_pem)?)
    }

    /// Unix seconds; of the root that expires first.
    pub fn root_expiry(&self) -> i64 {
        self.root_expiry
    }

    /// Unix seconds.
    pub fn issuer_expiry(&self) -> i64 {
        self.issuer_expiry
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Invalid> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| Invalid::Certificate(e.to_string()))
}

/// The certificates to present after a leaf, when the issuer's expires, and
/// whether it has a subject key identifier.
fn issuer_chain(text: &str) -> Result<(Vec<CertificateDer<'static>>, i64, bool), Invalid> {
    let given = pem::certificates(text.as_bytes())?;
    let parsed = given.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    for pair in parsed.windows(2) {
        if pair[0]
            .verify_signature(Some(pair[1].public_key()))
            .is_err()
        {
            return Err(Invalid::BrokenChain);
        }
    }
    let roots: HashSet<usize> = (0..parsed.len())
        .filter(|n| parsed[*n].verify_signature(None).is_ok())
        .collect();
    let kept: Vec<_> = (0..given.len()).filter(|n| !roots.contains(n)).collect();
    let first = kept.first().ok_or(Invalid::EmptyChain)?;
    let issuer = &parsed[*first];
    let is_ca = issuer
        .basic_constraints()
        .is_ok_and(|c| c.is_some_and(|c| c.value.ca));
    let may_sign = issuer
        .key_usage()
        .is_ok_and(|u| u.is_none_or(|u| u.value.key_cert_sign()));
    if !is_ca || !may_sign {
        return Err(Invalid::NotForSigning);
    }
    // The issuer's name is encoded into every leaf, which fails for attribute
    // types that are not valid object identifiers.
    let nameable = issuer
        .subject()
        .iter_attributes()
        .all(|attribute| is_encodable(attribute.attr_type()));
    if !nameable {
        return Err(Invalid::Certificate(
            "the subject has an attribute of no valid type".to_owned(),
        ));
    }
    let has_key_id = issuer
        .extensions()
        .iter()
        .any(|e| e.oid == x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER);
    let expiry = issuer.validity().not_after.timestamp();
    let chain = kept.iter().map(|n| given[*n].clone()).collect();
    Ok((chain, expiry, has_key_id))
}

/// Whether an object identifier has the two arcs that begin every one (X.660).
fn is_encodable(oid: &x509_parser::der_parser::Oid<'_>) -> bool {
    let Some(mut arcs) = oid.iter() else {
        return false;
    };
    match (arcs.next(), arcs.next()) {
        (Some(first), Some(second)) => first < 2 && second < 40 || first == 2 && second < 1 << 32,
        _ => false,
    }
}

/// A private key in any of the usual PEM blocks.
pub(in crate::ca) fn private_key(text: &str) -> Result<KeyPair, Invalid> {
    let block = <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()).next();
    let der: PrivateKeyDer<'_> = match block {
        Some(Ok((SectionKind::EcPrivateKey, der))) => PrivateKeyDer::Sec1(der.into()),
        Some(Ok((SectionKind::RsaPrivateKey, der))) => PrivateKeyDer::Pkcs1(der.into()),
        Some(Ok((SectionKind::PrivateKey, der))) => PrivateKeyDer::Pkcs8(der.into()),
        _ => {
            let label = text
                .split_once("-----BEGIN ")
                .and_then(|(_, rest)| rest.split_once("-----"));
            return Err(match label {
                Some((label, _)) => Invalid::KeyBlock(label.to_owned()),
                None => Invalid::KeyNotPem,
            });
        }
    };
    KeyPair::try_from(&der).map_err(Invalid::Key)
}

#[cfg(test)]
mod tests;
