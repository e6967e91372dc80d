//! A certificate authority small enough to read: one root, one issuer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use outrider_security::{Issue, IssueError, Issued};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issuer_pem: String,
    pub root_pem: String,
    terms: Mutex<Terms>,
    issued: AtomicUsize,
}

/// What the next certificates are like.
#[derive(Clone)]
pub struct Terms {
    pub id: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub is_ca: bool,
    pub key: Option<&'static str>,
}

impl Terms {
    pub fn for_id(id: &str) -> Self {
        let now = SystemTime::now();
        Self {
            id: id.to_owned(),
            not_before: now - Duration::from_secs(60),
            not_after: now + Duration::from_secs(3600),
            is_ca: false,
            key: None,
        }
    }
}

fn authority(organisation: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, organisation);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
    ];
    params
}

impl Authority {
    pub fn new(id: &str) -> Self {
        let root_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let root_params = authority("root");
        let root_pem = root_params.self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(root_params, root_key);
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = authority("issuer");
        let issuer_pem = params.signed_by(&key, &root).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            issuer_pem,
            root_pem,
            terms: Mutex::new(Terms::for_id(id)),
            issued: AtomicUsize::new(0),
        }
    }

    pub fn set(&self, change: impl FnOnce(&mut Terms)) {
        change(&mut self.terms.lock().unwrap());
    }

    /// How many certificates were issued.
    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Issue for Authority {
    async fn issue(&self, csr: &str) -> Result<Issued, IssueError> {
        let terms = self.terms.lock().unwrap().clone();
        let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(terms.id.as_str().try_into().unwrap())];
        params.not_before = terms.not_before.into();
        params.not_after = terms.not_after.into();
        if terms.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let leaf = match terms.key {
            Some(pem) => {
                let other = KeyPair::from_pem(pem).unwrap();
                params.signed_by(&other, &self.issuer).unwrap()
            }
            None => params.signed_by(&request.public_key, &self.issuer).unwrap(),
        };
        self.issued.fetch_add(1, Ordering::SeqCst);
        Ok(Issued {
            chain_pem: leaf.pem() + &self.issuer_pem,
            jwt: None,
            audience_jwts: Default::default(),
        })
    }
}
