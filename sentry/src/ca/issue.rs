//! Certificates for workloads.

use outrider_security::SpiffeId;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Policy;
use super::x509::{Signer, serial};

/// Extension that lists the container images of a pod.
const IMAGES: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 100, 1];

/// Why a request for a certificate cannot be read. Clients see the texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("invalid certificate signing request")]
    NotPem,
    #[error("failed to parse certificate signing request: {0}")]
    Malformed(String),
    #[error("invalid signature")]
    Signature,
}

/// A public key. Its holder has proved to have the private one.
pub struct PublicKey(SubjectPublicKeyInfo);

impl PublicKey {
    /// Takes the key, and only the key, from a PEM request.
    pub fn from_request(pem: &[u8]) -> Result<Self, RequestError> {
        let der = request_block(pem).ok_or(RequestError::NotPem)?;
        let malformed = |e: &dyn std::fmt::Display| RequestError::Malformed(e.to_string());
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|e| malformed(&e))?;
        if !rest.is_empty() {
            return Err(malformed(&"asn1: syntax error: trailing data"));
        }
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        let key = request.certification_request_info.subject_pki.raw;
        SubjectPublicKeyInfo::from_der(key)
            .map(Self)
            .map_err(|e| malformed(&e))
    }

    pub(super) fn of(key: &KeyPair) -> Result<Self, rcgen::Error> {
        SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(key))
            .map(Self)
    }
}

/// The first PEM block, if it is a request. An old client labels it
/// `CERTIFICATE`.
fn request_block(pem: &[u8]) -> Option<Vec<u8>> {
    match <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).next()?.ok()? {
        (SectionKind::Csr | SectionKind::Certificate, der) => Some(der),
        _ => None,
    }
}

/// The subject of a certificate.
pub struct Workload {
    pub id: SpiffeId,
    pub dns_names: Vec<String>,
    /// JSON.
    pub images: Option<Vec<u8>>,
}

impl Workload {
    pub fn application(id: SpiffeId) -> Self {
        Self {
            id,
            dns_names: Vec::new(),
            images: None,
        }
    }
}

pub struct Leaf {
    pub der: CertificateDer<'static>,
    pub not_after: OffsetDateTime,
    /// The leaf, then the issuers.
    pub chain_pem: String,
}

impl Signer {
    /// Signs a certificate, which never outlives the issuer's.
    pub fn sign(
        &self,
        key: &PublicKey,
        workload: &Workload,
        policy: &Policy,
    ) -> Result<Leaf, rcgen::Error> {
        let now = OffsetDateTime::now_utc();
        let issuer_end = OffsetDateTime::from_unix_timestamp(self.issuer_expiry())
            .map_err(|_| rcgen::Error::Time)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(serial()?);
        params.not_before = now - policy.clock_skew;
        params.not_after = (now + policy.workload_ttl).min(issuer_end);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = self.has_key_id;
        params.subject_alt_names = vec![SanType::URI(workload.id.as_str().try_into()?)];
        for name in &workload.dns_names {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.as_str().try_into()?));
        }
        if let Some(json) = &workload.images {
            let extension = CustomExtension::from_oid_content(IMAGES, octet_string(json));
            params.custom_extensions.push(extension);
        }
        let not_after = params.not_after;
        let certificate = params.signed_by(&key.0, &self.issuer)?;
        Ok(Leaf {
            chain_pem: certificate.pem() + self.chain_pem(),
            der: certificate.into(),
            not_after,
        })
    }
}

/// DER: tag, length in the shortest form, content.
fn octet_string(content: &[u8]) -> Vec<u8> {
    let mut der = vec![0x04];
    let length = content.len();
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let significant = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
        der.push(0x80 | significant.len() as u8);
        der.extend(significant);
    }
    der.extend(content);
    der
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> String {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn error(pem: &str) -> String {
        match PublicKey::from_request(pem.as_bytes()) {
            Ok(_) => panic!("it was accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn requests_of_every_key_type_are_read() {
        for algorithm in [
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::default();
            let pem = params.serialize_request(&key).unwrap().pem().unwrap();
            assert!(PublicKey::from_request(pem.as_bytes()).is_ok());
            let legacy = pem.replace("CERTIFICATE REQUEST", "CERTIFICATE");
            assert!(PublicKey::from_request(legacy.as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_bad_request_says_why() {
        let not_pem = "invalid certificate signing request";
        assert_eq!(error("hello"), not_pem);
        let labelled = request().replace("CERTIFICATE REQUEST", "PRIVATE KEY");
        assert_eq!(error(&labelled), not_pem);
        let empty = outrider_security::pem::encode("CERTIFICATE REQUEST", b"0");
        assert!(error(&empty).starts_with("failed to parse certificate signing request: "));
        // The signature is at the end.
        let (_, mut der) = <(SectionKind, Vec<u8>)>::pem_slice_iter(request().as_bytes())
            .next()
            .unwrap()
            .unwrap();
        *der.last_mut().unwrap() ^= 1;
        let forged = outrider_security::pem::encode("CERTIFICATE REQUEST", &der);
        assert_eq!(error(&forged), "invalid signature");
    }

    proptest! {
        #[test]
        fn prop_bytes_that_are_no_request_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PublicKey::from_request(&bytes);
            let framed = outrider_security::pem::encode("CERTIFICATE REQUEST", &bytes);
            prop_assert!(PublicKey::from_request(framed.as_bytes()).is_err());
        }

        #[test]
        fn prop_damage_never_yields_another_key(at in 0usize..400, bit in 0u8..8) {
            let text = request();
            let sound = PublicKey::from_request(text.as_bytes()).unwrap();
            let (_, mut der) = <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes())
                .next().unwrap().unwrap();
            let at = at % der.len();
            der[at] ^= 1 << bit;
            let framed = outrider_security::pem::encode("CERTIFICATE REQUEST", &der);
            if let Ok(read) = PublicKey::from_request(framed.as_bytes()) {
                prop_assert_eq!(read.0, sound.0);
            }
        }

        #[test]
        fn prop_an_octet_string_reads_back(content in prop::collection::vec(any::<u8>(), 0..700)) {
            use x509_parser::der_parser::asn1_rs::{FromDer, OctetString};
            let der = octet_string(&content);
            let (rest, read) = OctetString::from_der(&der).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(read.as_ref(), &content[..]);
        }
    }
}
