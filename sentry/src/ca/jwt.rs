//! JWT-SVIDs: <https://spiffe.io/docs/latest/spiffe-specs/jwt-svid/>.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use outrider_security::SpiffeId;
use rcgen::{KeyPair, RsaKeySize};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

use super::{Policy, x509};
use crate::flags;

/// A PEM key and a JSON key set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    pub key: Option<String>,
    pub jwks: Option<String>,
}

impl Material {
    pub fn is_complete(&self) -> bool {
        self.key.is_some() && self.jwks.is_some()
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("failed to load JWT signing key: {0}")]
    Key(String),
    #[error("failed to parse JWKS: {0}")]
    Jwks(String),
    #[error("JWKS doesn't contain any keys")]
    Empty,
    #[error("JWKS doesn't contain a key with user-provided key ID \"{0}\"")]
    NoKeyId(String),
    #[error(
        "JWKS contains a key with user-provided key ID \"{0}\" but the key content doesn't match the signing key"
    )]
    OtherKey(String),
    #[error("JWKS doesn't contain a matching public key for the JWT signing key")]
    NoMatch,
    #[error("JWT signing key is incompatible with algorithm {algorithm}: {why}")]
    Incompatible {
        algorithm: String,
        why: &'static str,
    },
    #[error("unsupported signature algorithm: {0}")]
    Unsupported(String),
    #[error("failed to generate JWT signing key: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("failed to generate JWKS: {0}")]
    Describe(#[from] jsonwebtoken::errors::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

fn algorithm(name: &str) -> Result<(Algorithm, Family), Invalid> {
    Ok(match name {
        "RS256" => (Algorithm::RS256, Family::Rsa),
        "RS384" => (Algorithm::RS384, Family::Rsa),
        "RS512" => (Algorithm::RS512, Family::Rsa),
        "PS256" => (Algorithm::PS256, Family::Rsa),
        "PS384" => (Algorithm::PS384, Family::Rsa),
        "PS512" => (Algorithm::PS512, Family::Rsa),
        "ES256" => (Algorithm::ES256, Family::P256),
        "ES384" => (Algorithm::ES384, Family::P384),
        "EdDSA" => (Algorithm::EdDSA, Family::Ed25519),
        other => return Err(Invalid::Unsupported(other.to_owned())),
    })
}

/// A key that fits the configured algorithm, and the set with its public half.
pub fn generate(settings: &flags::Jwt) -> Result<Material, Invalid> {
    let (algorithm, family) = algorithm(&settings.algorithm)?;
    let key = match family {
        Family::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        Family::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        Family::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        Family::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
    };
    let mut jwk = public_key(&key, family)?;
    jwk.common.key_algorithm = Some(algorithm.into());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_id = Some(match &settings.key_id {
        Some(id) => id.clone(),
        None => thumbprint(&jwk)?,
    });
    Ok(Material {
        key: Some(key.serialize_pem()),
        jwks: Some(json!({"keys": [jwk]}).to_string()),
    })
}

fn encoding_key(key: &KeyPair) -> Result<(EncodingKey, Family), Invalid> {
    let pem = key.serialize_pem();
    let pem = pem.as_bytes();
    let algorithm = key.algorithm();
    let unreadable = |e: jsonwebtoken::errors::Error| Invalid::Key(e.to_string());
    if *algorithm == rcgen::PKCS_ED25519 {
        return Ok((
            EncodingKey::from_ed_pem(pem).map_err(unreadable)?,
            Family::Ed25519,
        ));
    }
    for (curve, family) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Family::P256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, Family::P384),
    ] {
        if algorithm == curve {
            return Ok((EncodingKey::from_ec_pem(pem).map_err(unreadable)?, family));
        }
    }
    let key = EncodingKey::from_rsa_pem(pem).map_err(unreadable)?;
    Ok((key, Family::Rsa))
}

/// The public half, as RFC 7517 and RFC 8037 write it.
fn public_key(key: &KeyPair, family: Family) -> Result<Jwk, Invalid> {
    let raw = key.public_key_raw();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let curve = |name: &str| {
        // An uncompressed point: a byte that says so, then both coordinates.
        let (x, y) = raw[1..].split_at(raw.len() / 2);
        json!({"kty": "EC", "crv": name, "x": text(x), "y": text(y)})
    };
    let described = match family {
        Family::P256 => curve("P-256"),
        Family::P384 => curve("P-384"),
        Family::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "x": text(raw)}),
        Family::Rsa => {
            let (_, key) = RSAPublicKey::from_der(raw).map_err(|e| Invalid::Key(e.to_string()))?;
            let trimmed = |n: &[u8]| text(&n[n.iter().take_while(|b| **b == 0).count()..]);
            json!({"kty": "RSA", "n": trimmed(key.modulus), "e": trimmed(key.exponent)})
        }
    };
    serde_json::from_value(described).map_err(|e| Invalid::Key(e.to_string()))
}

/// RFC 7638, in standard base64 with padding.
fn thumbprint(jwk: &Jwk) -> Result<String, Invalid> {
    let text = jwk.thumbprint(ThumbprintHash::SHA256)?;
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|e| Invalid::Key(e.to_string()))?;
    Ok(STANDARD.encode(bytes))
}

/// Material that was found good, with what it is used for.
pub struct Signer {
    key: EncodingKey,
    header: Header,
    issuer: Option<String>,
    ttl: Duration,
    /// As it was given.
    pub jwks: Value,
    /// The algorithm's name.
    pub algorithm: String,
}

/// Tokens for one caller.
pub struct Tokens {
    pub base: String,
    pub per_audience: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("failed to generate JWT: {0}")]
    Base(jsonwebtoken::errors::Error),
    #[error("failed to generate JWT for audience {0}: {1}")]
    Audience(String, jsonwebtoken::errors::Error),
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a [&'a str],
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

impl Signer {
    /// Checks material even when no tokens are issued: the key set is published
    /// all the same. Incomplete material is then nothing.
    pub fn verified(material: &Material, policy: &Policy) -> Result<Option<Self>, Invalid> {
        let Some(key) = &material.key else {
            return Ok(None);
        };
        let pair = x509::private_key(key).map_err(|e| Invalid::Key(e.to_string()))?;
        let (key, family) = encoding_key(&pair)?;
        let Some(jwks) = &material.jwks else {
            return Ok(None);
        };
        let jwks: Value = serde_json::from_str(jwks).map_err(|e| Invalid::Jwks(e.to_string()))?;
        let keys = jwks["keys"]
            .as_array()
            .ok_or_else(|| Invalid::Jwks("there is no list of keys".into()))?;
        if keys.is_empty() {
            return Err(Invalid::Empty);
        }
        let own_thumbprint = thumbprint(&public_key(&pair, family)?)?;
        let is_own = |candidate: &&Value| {
            let parsed: Option<Jwk> = serde_json::from_value((*candidate).clone()).ok();
            parsed.and_then(|jwk| thumbprint(&jwk).ok()).as_ref() == Some(&own_thumbprint)
        };
        let settings = policy.jwt.as_ref();
        match settings.and_then(|s| s.key_id.as_ref()) {
            Some(id) => {
                let named: Vec<_> = keys.iter().filter(|k| k["kid"] == id.as_str()).collect();
                if named.is_empty() {
                    return Err(Invalid::NoKeyId(id.clone()));
                }
                if !named.iter().any(is_own) {
                    return Err(Invalid::OtherKey(id.clone()));
                }
            }
            None => {
                let mut signing = keys
                    .iter()
                    .filter(|k| k["use"].as_str().is_none_or(|u| u.is_empty() || u == "sig"));
                if !signing.any(|k| is_own(&k)) {
                    return Err(Invalid::NoMatch);
                }
            }
        }
        let Some(settings) = settings else {
            return Ok(None);
        };
        let (algorithm, wanted) = algorithm(&settings.algorithm)?;
        if family != wanted {
            return Err(Invalid::Incompatible {
                algorithm: settings.algorithm.clone(),
                why: match wanted {
                    Family::Rsa => "it needs an RSA key",
                    Family::P256 => "it needs an EC key on curve P-256",
                    Family::P384 => "it needs an EC key on curve P-384",
                    Family::Ed25519 => "it needs an Ed25519 key",
                },
            });
        }
        let mut header = Header::new(algorithm);
        header.kid = Some(match &settings.key_id {
            Some(id) => {
                tracing::info!(target: "dapr.sentry.ca", "Using JWT kid from configuration: {id}");
                id.clone()
            }
            None => {
                tracing::info!(target: "dapr.sentry.ca", "Using JWT kid from thumbprint: {own_thumbprint}, please ensure this aligns with your JWKS");
                own_thumbprint
            }
        });
        Ok(Some(Self {
            key,
            header,
            issuer: settings.issuer.clone(),
            ttl: settings.ttl,
            jwks,
            algorithm: settings.algorithm.clone(),
        }))
    }

    /// One token for the trust domain and every audience together, and one for
    /// each of them.
    pub fn sign(
        &self,
        id: &SpiffeId,
        audiences: &[String],
        policy: &Policy,
    ) -> Result<Tokens, SignError> {
        let mut all = vec![id.trust_domain_str()];
        all.extend(audiences.iter().map(String::as_str));
        let base = self.token(id, &all, policy).map_err(SignError::Base)?;
        let mut per_audience = BTreeMap::new();
        for audience in all {
            if !per_audience.contains_key(audience) {
                let token = self
                    .token(id, &[audience], policy)
                    .map_err(|e| SignError::Audience(audience.to_owned(), e))?;
                per_audience.insert(audience.to_owned(), token);
            }
        }
        Ok(Tokens { base, per_audience })
    }

    fn token(
        &self,
        id: &SpiffeId,
        audiences: &[&str],
        policy: &Policy,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = OffsetDateTime::now_utc();
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| jsonwebtoken::errors::ErrorKind::RsaFailedSigning)?;
        let claims = Claims {
            sub: id.as_str(),
            aud: audiences,
            iat: now.unix_timestamp(),
            nbf: (now - policy.clock_skew).unix_timestamp(),
            exp: (now + self.ttl).unix_timestamp(),
            jti: random.iter().map(|b| format!("{b:02x}")).collect(),
            usage: "sig",
            iss: self.issuer.as_deref(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key)
    }
}
