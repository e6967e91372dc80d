//! A key: what it is made of, and what it may be used for.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{PrivateDecryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair, KeyPair as _,
    RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::Refusal;

/// A key of any kind.
pub struct Key {
    pub(crate) material: Material,
    pub(crate) terms: Terms,
}

/// What a key says of itself.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub id: Option<String>,
    /// `sig` or `enc`.
    pub usage: Option<String>,
    /// Operations that it is for; all if there are none.
    pub operations: Vec<String>,
    /// The only algorithm that it is for.
    pub algorithm: Option<String>,
}

/// What a key is made of.
pub(crate) enum Material {
    Symmetric(Zeroizing<Vec<u8>>),
    Rsa(Rsa),
    Ec(Ec),
    Ed25519(Ed25519),
}

pub(crate) struct Rsa {
    pub public: PublicEncryptingKey,
    pub private: Option<Box<RsaPrivate>>,
}

pub(crate) struct RsaPrivate {
    pub signing: RsaKeyPair,
    pub decrypting: PrivateDecryptingKey,
}

pub(crate) struct Ec {
    pub curve: Curve,
    /// Not compressed.
    pub point: Vec<u8>,
    pub private: Option<EcdsaKeyPair>,
}

pub(crate) struct Ed25519 {
    pub public: [u8; 32],
    pub private: Option<Ed25519KeyPair>,
}

/// A curve of NIST's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub const ALL: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

    /// Its name in a JWK.
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    pub fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_ASN1_SIGNING,
        }
    }

    pub fn verifying(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::P521 => &ECDSA_P521_SHA512_ASN1,
        }
    }

    /// What a public key in DER begins with, before its point:
    /// <https://www.rfc-editor.org/rfc/rfc5480>.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Self::P256 => &[
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
            ],
            Self::P384 => &[
                0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
            ],
            Self::P521 => &[
                0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
                0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00,
            ],
        }
    }
}

/// The same for Ed25519: <https://www.rfc-editor.org/rfc/rfc8410>.
pub(crate) const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

impl Key {
    pub(crate) fn new(material: Material) -> Key {
        Key {
            material,
            terms: Terms::default(),
        }
    }

    /// The id that it has in a set of keys.
    pub fn id(&self) -> Option<&str> {
        self.terms.id.as_deref()
    }

    /// A symmetric key as its bytes; a private one as PKCS#8 and a public one as
    /// X.509, both in DER.
    pub fn serialize(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        Ok(Zeroizing::new(match &self.material {
            Material::Symmetric(bytes) => bytes.to_vec(),
            Material::Rsa(Rsa {
                private: Some(private),
                ..
            }) => {
                let der: Pkcs8V1Der<'_> = private.signing.as_der()?;
                der.as_ref().to_vec()
            }
            Material::Ec(Ec {
                private: Some(private),
                ..
            }) => private.to_pkcs8v1()?.as_ref().to_vec(),
            Material::Ed25519(Ed25519 {
                private: Some(private),
                ..
            }) => private.to_pkcs8v1()?.as_ref().to_vec(),
            _ => self.public_der()?,
        }))
    }

    /// The public half as X.509 in DER.
    pub(crate) fn public_der(&self) -> Result<Vec<u8>, Refusal> {
        match &self.material {
            Material::Symmetric(_) => Err(Refusal::KeyType),
            Material::Rsa(rsa) => {
                let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = rsa.public.as_der()?;
                Ok(der.as_ref().to_vec())
            }
            Material::Ec(ec) => Ok([ec.curve.prefix(), &ec.point].concat()),
            Material::Ed25519(key) => Ok([&ED25519_PREFIX[..], &key.public].concat()),
        }
    }

    /// The bytes of a symmetric key.
    pub(crate) fn symmetric(&self) -> Result<&[u8], Refusal> {
        match &self.material {
            Material::Symmetric(bytes) => Ok(bytes),
            _ => Err(Refusal::KeyType),
        }
    }

    /// Whether it may be used for an operation, by its terms:
    /// <https://www.rfc-editor.org/rfc/rfc7517#section-4.2>.
    pub(crate) fn allows(&self, operation: &str) -> bool {
        let listed = &self.terms.operations;
        let usage = match operation {
            "sign" | "verify" => "sig",
            _ => "enc",
        };
        (listed.is_empty() || listed.iter().any(|one| one == operation))
            && self
                .terms
                .usage
                .as_deref()
                .is_none_or(|given| given == usage)
    }

    pub(crate) fn allows_algorithm(&self, algorithm: &str) -> bool {
        let only = self.terms.algorithm.as_deref();
        only.is_none_or(|only| only == algorithm)
    }
}

/// Shows nothing of the key itself.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.material {
            Material::Symmetric(_) => "symmetric",
            Material::Rsa(_) => "RSA",
            Material::Ec(_) => "EC",
            Material::Ed25519(_) => "Ed25519",
        };
        f.debug_struct("Key")
            .field("kind", &kind)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

impl Rsa {
    pub fn of_private(signing: RsaKeyPair) -> Result<Rsa, Refusal> {
        let der: Pkcs8V1Der<'_> = signing.as_der()?;
        let decrypting =
            PrivateDecryptingKey::from_pkcs8(der.as_ref()).map_err(|_| Refusal::KeyType)?;
        Ok(Rsa {
            public: decrypting.public_key(),
            private: Some(Box::new(RsaPrivate {
                signing,
                decrypting,
            })),
        })
    }
}

impl Ec {
    pub fn of_private(curve: Curve, private: EcdsaKeyPair) -> Ec {
        Ec {
            curve,
            point: private.public_key().as_ref().to_vec(),
            private: Some(private),
        }
    }
}

impl Ed25519 {
    pub fn of_private(private: Ed25519KeyPair) -> Result<Ed25519, Refusal> {
        let public = private.public_key().as_ref();
        Ok(Ed25519 {
            public: public.try_into().map_err(|_| Refusal::KeyType)?,
            private: Some(private),
        })
    }
}
