//! Keys from bytes whose form has to be found out.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKey};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use outrider_components::Error;
use zeroize::Zeroizing;

use crate::key::{Curve, ED25519_PREFIX, Ec, Ed25519, Key, Material, Rsa};
use crate::{Refusal, jwk, pem, rsa};

/// Bytes that a key may have in any form.
pub const LONGEST: usize = 64 << 10;

/// What the bytes are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JWK.
    Json,
    /// PEM.
    Pem,
    /// Nothing is said.
    Unknown,
}

impl Form {
    /// What a content type says.
    pub fn of_content_type(name: &str) -> Form {
        match name {
            "application/json" => Form::Json,
            "application/x-pem-file" | "application/pkcs8" => Form::Pem,
            _ => Form::Unknown,
        }
    }
}

impl Key {
    /// Reads a key: a JWK, PEM (PKCS#8, PKCS#1, SEC 1 or X.509), or the bytes of
    /// a symmetric key, which may be in base64.
    pub fn parse(bytes: &[u8], form: Form) -> Result<Key, Error> {
        if bytes.is_empty() {
            return Err(Error::invalid("key is empty"));
        }
        if bytes.len() > LONGEST {
            return Err(Error::invalid(format!(
                "the key has {} bytes, and at most {LONGEST} are read",
                bytes.len()
            )));
        }
        let has_size_of_aes = matches!(bytes.len(), 16 | 24 | 32);
        match form {
            Form::Json => jwk::parse(bytes),
            Form::Pem => of_pem(bytes),
            Form::Unknown if bytes.starts_with(b"{") && !has_size_of_aes => jwk::parse(bytes),
            Form::Unknown if bytes.len() > 10 && bytes.starts_with(b"-----") => of_pem(bytes),
            Form::Unknown => Ok(of_bytes(bytes)),
        }
    }

    /// The keys of a JWKS.
    pub fn parse_set(text: &[u8]) -> Result<Vec<Key>, Error> {
        jwk::parse_set(text)
    }

    /// A symmetric key of these bytes, as they are.
    pub fn of_raw(bytes: &[u8]) -> Key {
        Key::new(Material::Symmetric(Zeroizing::new(bytes.to_vec())))
    }
}

fn of_bytes(bytes: &[u8]) -> Key {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'='));
    let trimmed = &bytes[..end.map_or(0, |end| end + 1)];
    let standard = STANDARD_NO_PAD.decode(trimmed);
    match standard.or_else(|_| URL_SAFE_NO_PAD.decode(trimmed)) {
        Ok(decoded) => Key::of_raw(&Zeroizing::new(decoded)),
        Err(_) => Key::of_raw(bytes),
    }
}

fn of_pem(bytes: &[u8]) -> Result<Key, Error> {
    let text = std::str::from_utf8(bytes).ok();
    let (label, der) = text
        .and_then(pem::first)
        .ok_or_else(|| Error::invalid("the key is not valid PEM"))?;
    let material = match label {
        "PRIVATE KEY" => of_pkcs8(&der),
        "RSA PRIVATE KEY" => of_pkcs1(&der),
        "EC PRIVATE KEY" => of_sec1(&der),
        "PUBLIC KEY" => of_x509(&der),
        "RSA PUBLIC KEY" => of_public_pkcs1(&der),
        _ => None,
    };
    match material {
        Some(material) => Ok(Key::new(material)),
        None => Err(Error::invalid(
            "the PEM block holds no key that is known: use RSA, a curve of NIST's or Ed25519",
        )),
    }
}

fn of_pkcs8(der: &[u8]) -> Option<Material> {
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
        return checked(Rsa::of_private(pair));
    }
    for curve in Curve::ALL {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.signing(), der) {
            return Some(Material::Ec(Ec::of_private(curve, pair)));
        }
    }
    // Most have no public half in them.
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
    Ed25519::of_private(pair).ok().map(Material::Ed25519)
}

fn of_pkcs1(der: &[u8]) -> Option<Material> {
    checked(Rsa::of_private(RsaKeyPair::from_der(der).ok()?))
}

fn of_sec1(der: &[u8]) -> Option<Material> {
    Curve::ALL.into_iter().find_map(|curve| {
        let pair = EcdsaKeyPair::from_private_key_der(curve.signing(), der).ok()?;
        Some(Material::Ec(Ec::of_private(curve, pair)))
    })
}

fn of_x509(der: &[u8]) -> Option<Material> {
    if let Some(public) = der.strip_prefix(&ED25519_PREFIX) {
        let public = public.try_into().ok()?;
        let private = None;
        return Some(Material::Ed25519(Ed25519 { public, private }));
    }
    for curve in Curve::ALL {
        let Some(point) = der.strip_prefix(curve.prefix()) else {
            continue;
        };
        let public = UnparsedPublicKey::new(curve.verifying(), point);
        public.parse().ok()?;
        return Some(Material::Ec(Ec {
            curve,
            point: point.to_vec(),
            private: None,
        }));
    }
    let public = PublicEncryptingKey::from_der(der).ok()?;
    checked(Ok(Rsa {
        public,
        private: None,
    }))
}

fn of_public_pkcs1(der: &[u8]) -> Option<Material> {
    let public = PublicKey::from_der(der).ok()?;
    of_x509(public.as_der().ok()?.as_ref())
}

fn checked(rsa: Result<Rsa, Refusal>) -> Option<Material> {
    let rsa = rsa.ok()?;
    rsa::check_size(rsa.public.key_size_bytes()).ok()?;
    Some(Material::Rsa(rsa))
}
