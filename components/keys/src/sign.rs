//! Signatures of digests.

use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::rsa::{RsaParameters, RsaPssSaltLength};
use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    UnparsedPublicKey,
};

use crate::Refusal;
use crate::key::{Curve, Ec, Ed25519, Key, Material};

/// How a digest is signed.
enum Scheme {
    Rsa {
        signing: &'static dyn RsaEncoding,
        /// What a signature may be, one after the other.
        verifying: [Option<&'static RsaParameters>; 2],
    },
    Ec(Curve),
    Ed25519,
}

// The salt is as long as the digest, or as long as it can be: signers of other
// libraries choose that.
static PSS_256_MAX: RsaParameters =
    RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
static PSS_384_MAX: RsaParameters =
    RSA_PSS_2048_8192_SHA384.with_pss_salt_length(RsaPssSaltLength::Max);
static PSS_512_MAX: RsaParameters =
    RSA_PSS_2048_8192_SHA512.with_pss_salt_length(RsaPssSaltLength::Max);

fn scheme(algorithm: &str) -> Result<(Scheme, &'static Algorithm), Refusal> {
    let rsa = |signing, verifying| Scheme::Rsa { signing, verifying };
    Ok(match algorithm {
        "RS256" => (
            rsa(
                &RSA_PKCS1_SHA256,
                [Some(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY), None],
            ),
            &SHA256,
        ),
        "RS384" => (
            rsa(&RSA_PKCS1_SHA384, [Some(&RSA_PKCS1_2048_8192_SHA384), None]),
            &SHA384,
        ),
        "RS512" => (
            rsa(
                &RSA_PKCS1_SHA512,
                [Some(&RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY), None],
            ),
            &SHA512,
        ),
        "PS256" => (
            rsa(
                &RSA_PSS_SHA256,
                [Some(&RSA_PSS_2048_8192_SHA256), Some(&PSS_256_MAX)],
            ),
            &SHA256,
        ),
        "PS384" => (
            rsa(
                &RSA_PSS_SHA384,
                [Some(&RSA_PSS_2048_8192_SHA384), Some(&PSS_384_MAX)],
            ),
            &SHA384,
        ),
        "PS512" => (
            rsa(
                &RSA_PSS_SHA512,
                [Some(&RSA_PSS_2048_8192_SHA512), Some(&PSS_512_MAX)],
            ),
            &SHA512,
        ),
        "ES256" => (Scheme::Ec(Curve::P256), &SHA256),
        "ES384" => (Scheme::Ec(Curve::P384), &SHA384),
        "ES512" => (Scheme::Ec(Curve::P521), &SHA512),
        // It signs the message itself.
        "EdDSA" => (Scheme::Ed25519, &SHA512),
        _ => return Err(Refusal::Algorithm),
    })
}

fn import(digest: &[u8], algorithm: &'static Algorithm) -> Result<Digest, Refusal> {
    Digest::import_less_safe(digest, algorithm).map_err(|_| Refusal::Length)
}

pub fn sign(key: &Key, algorithm: &str, digest: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (scheme, hash) = scheme(algorithm)?;
    match (scheme, &key.material) {
        (Scheme::Rsa { signing, .. }, Material::Rsa(rsa)) => {
            let private = rsa.private.as_ref().ok_or(Refusal::KeyType)?;
            let mut signature = vec![0; private.signing.public_modulus_len()];
            let digest = import(digest, hash)?;
            private
                .signing
                .sign_digest(signing, &digest, &mut signature)?;
            Ok(signature)
        }
        (
            Scheme::Ec(curve),
            Material::Ec(Ec {
                curve: of, private, ..
            }),
        ) if curve == *of => {
            let private = private.as_ref().ok_or(Refusal::KeyType)?;
            Ok(private
                .sign_digest(&import(digest, hash)?)?
                .as_ref()
                .to_vec())
        }
        (Scheme::Ed25519, Material::Ed25519(Ed25519 { private, .. })) => {
            let private = private.as_ref().ok_or(Refusal::KeyType)?;
            Ok(private.try_sign(digest)?.as_ref().to_vec())
        }
        _ => Err(Refusal::KeyType),
    }
}

pub fn verify(
    key: &Key,
    algorithm: &str,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, Refusal> {
    let (scheme, hash) = scheme(algorithm)?;
    match (scheme, &key.material) {
        (Scheme::Rsa { verifying, .. }, Material::Rsa(_)) => {
            let digest = import(digest, hash)?;
            let der = key.public_der()?;
            Ok(verifying.into_iter().flatten().any(|parameters| {
                let public = UnparsedPublicKey::new(parameters, &der);
                public.verify_digest(&digest, signature).is_ok()
            }))
        }
        (
            Scheme::Ec(curve),
            Material::Ec(Ec {
                curve: of, point, ..
            }),
        ) if curve == *of => {
            let digest = import(digest, hash)?;
            let public = UnparsedPublicKey::new(curve.verifying(), point);
            Ok(public.verify_digest(&digest, signature).is_ok())
        }
        (Scheme::Ed25519, Material::Ed25519(Ed25519 { public, .. })) => {
            let public = UnparsedPublicKey::new(&ED25519, public);
            Ok(public.verify(digest, signature).is_ok())
        }
        _ => Err(Refusal::KeyType),
    }
}
