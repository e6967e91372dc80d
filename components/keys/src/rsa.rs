//! Encryption with RSA.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, Pkcs1PrivateDecryptingKey,
    Pkcs1PublicEncryptingKey, PublicEncryptingKey, PublicKey,
};
use outrider_components::Error;

use crate::Refusal;
use crate::key::{Key, Material, Rsa};

/// Bytes of a modulus that are accepted: 1,024 to 16,384 bits.
const SIZES: std::ops::RangeInclusive<usize> = 128..=2_048;

/// An error for a modulus that nobody should use, or that would take minutes.
pub fn check_size(bytes: usize) -> Result<(), Error> {
    match SIZES.contains(&bytes) {
        true => Ok(()),
        false => Err(Error::invalid("an RSA key of that size is not accepted")),
    }
}

/// None for what is no algorithm of RSA.
fn oaep(algorithm: &str) -> Option<&'static OaepAlgorithm> {
    Some(match algorithm {
        "RSA-OAEP" => &OAEP_SHA1_MGF1SHA1,
        "RSA-OAEP-256" => &OAEP_SHA256_MGF1SHA256,
        "RSA-OAEP-384" => &OAEP_SHA384_MGF1SHA384,
        "RSA-OAEP-512" => &OAEP_SHA512_MGF1SHA512,
        _ => return None,
    })
}

pub fn is_one(algorithm: &str) -> bool {
    algorithm == "RSA1_5" || oaep(algorithm).is_some()
}

fn of(key: &Key) -> Result<&Rsa, Refusal> {
    match &key.material {
        Material::Rsa(rsa) => Ok(rsa),
        _ => Err(Refusal::KeyType),
    }
}

/// None where there is nothing.
fn label(associated_data: &[u8]) -> Option<&[u8]> {
    Some(associated_data).filter(|label| !label.is_empty())
}

pub fn encrypt(
    key: &Key,
    algorithm: &str,
    plaintext: &[u8],
    associated_data: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let public = of(key)?.public.clone();
    let mut out = vec![0; public.key_size_bytes()];
    let size = match oaep(algorithm) {
        Some(oaep) => {
            let key = OaepPublicEncryptingKey::new(public)?;
            key.encrypt(oaep, plaintext, &mut out, label(associated_data))?
                .len()
        }
        None => {
            let key = Pkcs1PublicEncryptingKey::new(public)?;
            key.encrypt(plaintext, &mut out)?.len()
        }
    };
    out.truncate(size);
    Ok(out)
}

pub fn decrypt(
    key: &Key,
    algorithm: &str,
    ciphertext: &[u8],
    associated_data: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let private = of(key)?.private.as_ref().ok_or(Refusal::KeyType)?;
    let private = private.decrypting.clone();
    let mut out = vec![0; private.key_size_bytes()];
    let size = match oaep(algorithm) {
        Some(oaep) => {
            let key = OaepPrivateDecryptingKey::new(private)?;
            key.decrypt(oaep, ciphertext, &mut out, label(associated_data))?
                .len()
        }
        None => {
            let key = Pkcs1PrivateDecryptingKey::new(private)?;
            key.decrypt(ciphertext, &mut out)?.len()
        }
    };
    out.truncate(size);
    Ok(out)
}

/// Modulus and exponent.
pub fn components(public: &PublicEncryptingKey) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let der: PublicKeyX509Der<'_> = public.as_der()?;
    let key = PublicKey::from_der(der.as_ref()).map_err(|_| Refusal::KeyType)?;
    // PKCS#1: a sequence of two integers.
    let (sequence, _) = element(0x30, key.as_ref()).ok_or(Refusal::KeyType)?;
    let (modulus, rest) = element(0x02, sequence).ok_or(Refusal::KeyType)?;
    let (exponent, _) = element(0x02, rest).ok_or(Refusal::KeyType)?;
    // A zero at the front is its sign.
    let unsigned = |bytes: &[u8]| bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec();
    Ok((unsigned(modulus), unsigned(exponent)))
}

/// What is in the first element of DER, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, der) = der.split_first()?;
    let (length, mut der) = der.split_first()?;
    let mut size = usize::from(*length);
    if size > 0x80 {
        let (bytes, rest) = der.split_at_checked(size - 0x80)?;
        if bytes.len() > 4 {
            return None;
        }
        size = bytes
            .iter()
            .fold(0, |size, byte| size << 8 | usize::from(*byte));
        der = rest;
    }
    (*found == tag).then(|| der.split_at_checked(size))?
}
