//! A process's own certificate, replaced while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::anchors::Roots;
use crate::chain;
use crate::id::SpiffeId;
use crate::pem;
use crate::request::Issued;

/// Renewals never follow each other faster than this.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// What the private key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Ed25519,
    /// 2048 bits. Webhooks need it: some API servers refuse Ed25519.
    Rsa,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("error parsing newly signed certificate: {0}")]
    Certificate(String),
    #[error("error parsing newly signed certificate: {0}")]
    Chain(#[from] chain::Error),
    #[error("{0}")]
    Jwt(#[from] JwtError),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("failed to parse JWT SVID: {0}")]
    Malformed(&'static str),
    #[error("JWT audience is empty")]
    NoAudience,
    #[error("JWT audience mismatch")]
    Audience,
    #[error("JWT audience is required")]
    Required,
    #[error("JWT SVID has different audiences than requested: expected {expected}, got {got}")]
    Different { expected: String, got: String },
    #[error("no JWT SVID available")]
    None,
}

/// A key whose certificate is being requested.
pub(crate) struct Pending {
    key: KeyPair,
    pub csr: String,
}

impl Pending {
    pub fn new(kind: Key) -> Result<Self, Error> {
        let key = match kind {
            Key::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
            Key::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.pem()?;
        Ok(Self { key, csr })
    }

    /// Checks that the answer is for this key, proves an id under `roots`, and
    /// has tokens for that id.
    pub fn complete(self, issued: Issued, roots: &Roots) -> Result<Svid, Error> {
        let bad = |e: &dyn fmt::Display| Error::Certificate(e.to_string());
        let presented = pem::certificates(issued.chain_pem.as_bytes()).map_err(|e| bad(&e))?;
        let leaf = presented
            .first()
            .ok_or_else(|| Error::Certificate("no certificates found".into()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| bad(&e))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        // Checked at its first second: one that is about to expire is still
        // better than none.
        let first = Duration::from_secs(not_before.max(0).unsigned_abs());
        let id = chain::verify(&presented, roots, UnixTime::since_unix_epoch(first))
            .or_else(|_| chain::verify(&presented, roots, UnixTime::now()))?;

        let key_der = Zeroizing::new(self.key.serialize_der());
        let signer = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(key_der.to_vec().into()))
            .map_err(|e| bad(&e))?;
        let certified = CertifiedKey::new(presented, signer);
        certified.keys_match().map_err(|e| bad(&e))?;

        let jwt = issued.jwt.map(|token| Jwt::read(token, None)).transpose()?;
        if let Some(jwt) = &jwt
            && !jwt.audiences.iter().any(|a| a == id.trust_domain_str())
        {
            return Err(JwtError::Audience.into());
        }
        let jwts = issued
            .audience_jwts
            .into_iter()
            .map(|(audience, token)| Ok((audience.clone(), Jwt::read(token, Some(&audience))?)))
            .collect::<Result<_, JwtError>>()?;
        Ok(Svid {
            id,
            certified: Arc::new(certified),
            key_der,
            not_before: at(not_before),
            not_after: at(not_after),
            issued: SystemTime::now(),
            jwt,
            jwts,
        })
    }
}

fn at(unix: i64) -> SystemTime {
    let distance = Duration::from_secs(unix.unsigned_abs());
    if unix < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

/// A certificate with its key, and the tokens that came with it.
pub struct Svid {
    id: SpiffeId,
    certified: Arc<CertifiedKey>,
    key_der: Zeroizing<Vec<u8>>,
    not_before: SystemTime,
    not_after: SystemTime,
    issued: SystemTime,
    jwt: Option<Jwt>,
    jwts: BTreeMap<String, Jwt>,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Svid {
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// Leaf first, then the issuers; never the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The private key, PKCS#8.
    pub fn key_der(&self) -> &[u8] {
        &self.key_der
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The token without a requested audience, if sentry issues tokens.
    pub fn jwt(&self) -> Option<&str> {
        self.jwt.as_ref().map(|j| j.token.as_str())
    }

    /// A token for `audience`: the one asked for at start, else the base token
    /// if it covers this audience.
    pub fn jwt_for(&self, audience: &str) -> Result<&str, JwtError> {
        if audience.is_empty() {
            return Err(JwtError::Required);
        }
        if let Some(jwt) = self.jwts.get(audience) {
            return Ok(&jwt.token);
        }
        let base = self.jwt.as_ref().ok_or(JwtError::None)?;
        if base.audiences.iter().any(|a| a == audience) {
            return Ok(&base.token);
        }
        Err(JwtError::Different {
            expected: audience.to_owned(),
            got: format!("[{}]", base.audiences.join(" ")),
        })
    }

    /// When to renew: half-way through its life, and half-way through what is
    /// left of any token.
    pub(crate) fn renewal(&self, now: SystemTime) -> SystemTime {
        let half_left = |end: SystemTime, from: SystemTime| {
            from + end.duration_since(from).unwrap_or_default() / 2
        };
        let middle = half_left(self.not_after, self.not_before);
        // Past the middle from the beginning: a life shorter than the clock skew
        // that sentry allows for.
        let certificate = if middle > self.issued {
            middle
        } else {
            half_left(self.not_after, self.issued)
        };
        let tokens = self.jwt.iter().chain(self.jwts.values());
        tokens
            .filter_map(|jwt| Some(half_left(jwt.expires?, self.issued)))
            .fold(certificate, SystemTime::min)
            .max(self.issued + MIN_PAUSE)
            .max(now)
    }
}

#[derive(Debug, Clone)]
struct Jwt {
    token: String,
    audiences: Vec<String>,
    expires: Option<SystemTime>,
}

#[derive(serde::Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    exp: Option<f64>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Jwt {
    /// The signature is not verified: the token came from sentry over a
    /// connection that was, and is for others to check.
    fn read(token: String, only: Option<&str>) -> Result<Self, JwtError> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Malformed("not three parts"));
        };
        let claims = URL_SAFE_NO_PAD
            .decode(claims)
            .map_err(|_| JwtError::Malformed("not base64url"))?;
        let claims: Claims = serde_json::from_slice(&claims)
            .map_err(|_| JwtError::Malformed("claims are not those of a JWT"))?;
        let audiences = match claims.aud {
            Audiences::One(a) => vec![a],
            Audiences::Many(all) => all,
        };
        if audiences.is_empty() {
            return Err(JwtError::NoAudience);
        }
        if only.is_some_and(|only| audiences != [only]) {
            return Err(JwtError::Audience);
        }
        let expires = claims
            .exp
            .and_then(|s| Duration::try_from_secs_f64(s).ok())
            .and_then(|s| SystemTime::UNIX_EPOCH.checked_add(s));
        Ok(Self {
            token,
            audiences,
            expires,
        })
    }
}

/// The current certificate of this process. Reading it takes no lock.
#[derive(Clone)]
pub struct Identity(Arc<ArcSwap<Svid>>);

impl Identity {
    pub(crate) fn new(svid: Svid) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(svid)))
    }

    pub fn current(&self) -> Arc<Svid> {
        self.0.load_full()
    }

    pub(crate) fn replace(&self, svid: Svid) {
        self.0.store(Arc::new(svid));
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.load().fmt(f)
    }
}

#[cfg(test)]
mod tests;
