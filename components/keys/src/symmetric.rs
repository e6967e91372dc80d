//! Encryption with symmetric keys.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey,
    EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use outrider_components::crypto::Sealed;
use zeroize::Zeroizing;

use crate::{Refusal, chacha, wrap};

/// Bytes of a block of AES, and of a tag of GCM and of Poly1305.
const BLOCK: usize = 16;
const TAG: usize = 16;

/// How an algorithm encrypts.
#[derive(Clone, Copy)]
enum Scheme {
    Cbc {
        padded: bool,
    },
    /// CBC with a MAC: <https://www.rfc-editor.org/rfc/rfc7518#section-5.2>.
    CbcHmac(hmac::Algorithm),
    Gcm,
    KeyWrap,
    ChaCha,
    XChaCha,
}

/// The scheme of an algorithm, and the bytes that its keys have.
fn scheme(algorithm: &str) -> Option<(Scheme, usize)> {
    Some(match algorithm {
        "C20P" | "C20PKW" => (Scheme::ChaCha, 32),
        "XC20P" | "XC20PKW" => (Scheme::XChaCha, 32),
        "A128CBC-HS256" => (Scheme::CbcHmac(hmac::HMAC_SHA256), 32),
        "A192CBC-HS384" => (Scheme::CbcHmac(hmac::HMAC_SHA384), 48),
        "A256CBC-HS512" => (Scheme::CbcHmac(hmac::HMAC_SHA512), 64),
        _ => {
            let (bits, mode) = algorithm.strip_prefix('A')?.split_at_checked(3)?;
            let size = match bits {
                "128" => 16,
                "192" => 24,
                "256" => 32,
                _ => return None,
            };
            let scheme = match mode {
                "CBC" => Scheme::Cbc { padded: true },
                "CBC-NOPAD" => Scheme::Cbc { padded: false },
                "GCM" => Scheme::Gcm,
                "KW" => Scheme::KeyWrap,
                _ => return None,
            };
            (scheme, size)
        }
    })
}

pub fn is_one(algorithm: &str) -> bool {
    scheme(algorithm).is_some()
}

/// A key for an algorithm that it has the size for.
fn checked(algorithm: &str, key: &[u8]) -> Result<Scheme, Refusal> {
    let (scheme, size) = scheme(algorithm).ok_or(Refusal::Algorithm)?;
    if key.len() != size {
        return Err(Refusal::KeyType);
    }
    Ok(scheme)
}

pub fn encrypt(
    key: &[u8],
    algorithm: &str,
    plaintext: &[u8],
    nonce: &[u8],
    associated_data: &[u8],
) -> Result<Sealed, Refusal> {
    let untagged = |data| Sealed {
        data,
        tag: Vec::new(),
    };
    match checked(algorithm, key)? {
        Scheme::Cbc { padded } => Ok(untagged(cbc_encrypt(key, padded, plaintext, nonce)?)),
        Scheme::KeyWrap => Ok(untagged(wrap::wrap(key, plaintext)?)),
        Scheme::CbcHmac(algorithm) => {
            let (mac_key, key) = key.split_at(key.len() / 2);
            let data = cbc_encrypt(key, true, plaintext, nonce)?;
            let mut tag = cbc_tag(algorithm, mac_key, &data, nonce, associated_data);
            tag.truncate(mac_key.len());
            Ok(Sealed { data, tag })
        }
        scheme => {
            let (key, nonce) = aead(scheme, key, nonce)?;
            let mut data = plaintext.to_vec();
            let aad = Aad::from(associated_data);
            let tag = key.seal_in_place_separate_tag(nonce, aad, &mut data)?;
            Ok(Sealed {
                data,
                tag: tag.as_ref().to_vec(),
            })
        }
    }
}

pub fn decrypt(
    key: &[u8],
    algorithm: &str,
    sealed: &Sealed,
    nonce: &[u8],
    associated_data: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let Sealed { data, tag } = sealed;
    match checked(algorithm, key)? {
        Scheme::Cbc { padded } => cbc_decrypt(key, padded, data, nonce),
        Scheme::KeyWrap => wrap::unwrap(key, data),
        Scheme::CbcHmac(algorithm) => {
            let (mac_key, key) = key.split_at(key.len() / 2);
            if tag.len() != mac_key.len() {
                return Err(Refusal::Tag);
            }
            let wanted = cbc_tag(algorithm, mac_key, data, nonce, associated_data);
            verify_slices_are_equal(&wanted[..tag.len()], tag)?;
            cbc_decrypt(key, true, data, nonce)
        }
        scheme => {
            let (key, nonce) = aead(scheme, key, nonce)?;
            if tag.len() != TAG {
                return Err(Refusal::Tag);
            }
            let mut data = [&data[..], tag].concat();
            let size = key
                .open_in_place(nonce, Aad::from(associated_data), &mut data)?
                .len();
            data.truncate(size);
            Ok(data)
        }
    }
}

fn aead(scheme: Scheme, key: &[u8], nonce: &[u8]) -> Result<(LessSafeKey, Nonce), Refusal> {
    let mut subkey = Zeroizing::new([0; 32]);
    let mut short = [0; 12];
    let (algorithm, key, nonce) = match scheme {
        Scheme::Gcm if key.len() == 16 => (&AES_128_GCM, key, nonce),
        Scheme::Gcm if key.len() == 24 => (&AES_192_GCM, key, nonce),
        Scheme::Gcm => (&AES_256_GCM, key, nonce),
        Scheme::XChaCha => {
            let key: &[u8; 32] = key.try_into().map_err(|_| Refusal::KeyType)?;
            let (first, rest) = nonce.split_first_chunk().ok_or(Refusal::Nonce)?;
            if rest.len() != 8 {
                return Err(Refusal::Nonce);
            }
            *subkey = *chacha::subkey(key, first);
            short[4..].copy_from_slice(rest);
            (&CHACHA20_POLY1305, &subkey[..], &short[..])
        }
        _ => (&CHACHA20_POLY1305, key, nonce),
    };
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refusal::Nonce)?;
    let key = UnboundKey::new(algorithm, key).map_err(|_| Refusal::KeyType)?;
    Ok((LessSafeKey::new(key), nonce))
}

fn aes(key: &[u8]) -> Result<UnboundCipherKey, Refusal> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        _ => &AES_256,
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| Refusal::KeyType)
}

fn iv(nonce: &[u8]) -> Result<FixedLength<BLOCK>, Refusal> {
    let nonce: &[u8; BLOCK] = nonce.try_into().map_err(|_| Refusal::Nonce)?;
    Ok(FixedLength::from(nonce))
}

fn cbc_encrypt(
    key: &[u8],
    padded: bool,
    plaintext: &[u8],
    nonce: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let context = EncryptionContext::Iv128(iv(nonce)?);
    let mut data = plaintext.to_vec();
    if padded {
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(aes(key)?)?;
        key.less_safe_encrypt(&mut data, context)?;
    } else {
        if !data.len().is_multiple_of(BLOCK) {
            return Err(Refusal::Length);
        }
        let key = EncryptingKey::cbc(aes(key)?)?;
        key.less_safe_encrypt(&mut data, context)?;
    }
    Ok(data)
}

fn cbc_decrypt(
    key: &[u8],
    padded: bool,
    ciphertext: &[u8],
    nonce: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let context = DecryptionContext::Iv128(iv(nonce)?);
    if !ciphertext.len().is_multiple_of(BLOCK) || (padded && ciphertext.is_empty()) {
        return Err(Refusal::Length);
    }
    let mut data = ciphertext.to_vec();
    let size = if padded {
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(aes(key)?)?;
        key.decrypt(&mut data, context)?.len()
    } else {
        let key = DecryptingKey::cbc(aes(key)?)?;
        key.decrypt(&mut data, context)?.len()
    };
    data.truncate(size);
    Ok(data)
}

fn cbc_tag(
    algorithm: hmac::Algorithm,
    key: &[u8],
    ciphertext: &[u8],
    nonce: &[u8],
    associated_data: &[u8],
) -> Vec<u8> {
    let bits = (associated_data.len() as u64).saturating_mul(8);
    let mut mac = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in [associated_data, nonce, ciphertext, &bits.to_be_bytes()] {
        mac.update(part);
    }
    mac.sign().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [(&str, usize, usize); 19] = [
        ("A128CBC", 16, 16),
        ("A192CBC", 24, 16),
        ("A256CBC", 32, 16),
        ("A128CBC-NOPAD", 16, 16),
        ("A192CBC-NOPAD", 24, 16),
        ("A256CBC-NOPAD", 32, 16),
        ("A128GCM", 16, 12),
        ("A192GCM", 24, 12),
        ("A256GCM", 32, 12),
        ("A128CBC-HS256", 32, 16),
        ("A192CBC-HS384", 48, 16),
        ("A256CBC-HS512", 64, 16),
        ("A128KW", 16, 0),
        ("A192KW", 24, 0),
        ("A256KW", 32, 0),
        ("C20P", 32, 12),
        ("C20PKW", 32, 12),
        ("XC20P", 32, 24),
        ("XC20PKW", 32, 24),
    ];

    proptest! {
        #[test]
        fn prop_what_was_encrypted_comes_back(
            text in proptest::collection::vec(any::<u8>(), 1..8).prop_map(|v| v.repeat(16)),
            bytes in proptest::collection::vec(any::<u8>(), 64),
            aad in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            for (algorithm, key, nonce) in ALL {
                let (key, nonce) = (&bytes[..key], &bytes[..nonce]);
                let sealed = encrypt(key, algorithm, &text, nonce, &aad);
                let sealed = sealed.map_err(|e| TestCaseError::fail(format!("{algorithm} {e:?}")))?;
                prop_assert_ne!(&sealed.data, &text);
                let opened = decrypt(key, algorithm, &sealed, nonce, &aad);
                prop_assert_eq!(opened.as_ref(), Ok(&text), "{}", algorithm);
                if sealed.tag.is_empty() {
                    continue;
                }
                let mut changed = sealed.clone();
                changed.data[0] ^= 1;
                prop_assert!(decrypt(key, algorithm, &changed, nonce, &aad).is_err());
                let other = [&aad[..], b"x"].concat();
                prop_assert!(decrypt(key, algorithm, &sealed, nonce, &other).is_err());
                changed = sealed.clone();
                changed.tag.pop();
                prop_assert_eq!(
                    decrypt(key, algorithm, &changed, nonce, &aad),
                    Err(Refusal::Tag)
                );
            }
        }

        #[test]
        fn prop_nothing_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            tag in proptest::collection::vec(any::<u8>(), 0..40),
            size in 0_usize..70,
        ) {
            let sealed = Sealed { data: bytes.clone(), tag };
            let part = &bytes[..size.min(bytes.len())];
            for (algorithm, ..) in ALL {
                let _ = encrypt(part, algorithm, &bytes, part, part);
                let _ = decrypt(part, algorithm, &sealed, part, part);
            }
        }
    }

    #[test]
    fn keys_and_nonces_have_one_size() {
        for (algorithm, key, nonce) in ALL {
            let text = [0; 32];
            let short = encrypt(&vec![0; key - 1], algorithm, &text, &vec![0; nonce], &[]);
            assert_eq!(short, Err(Refusal::KeyType), "{algorithm}");
            if nonce > 0 {
                let short = encrypt(&vec![0; key], algorithm, &text, &vec![0; nonce - 1], &[]);
                assert_eq!(short, Err(Refusal::Nonce), "{algorithm}");
            }
        }
        for algorithm in ["A128", "A512GCM", "A128GCMKW", "", "AÄÖCBC", "RSA-OAEP"] {
            let refused = encrypt(&[0; 16], algorithm, &[], &[], &[]);
            assert_eq!(refused, Err(Refusal::Algorithm), "{algorithm}");
        }
    }

    /// Appendix B.1 of RFC 7518.
    #[test]
    fn cbc_with_a_mac_is_that_of_the_rfc() {
        let key: Vec<u8> = (0..32).collect();
        let text = b"A cipher system must not be required to be secret, and it must be able to fall into the hands of the enemy without inconvenience";
        let nonce = [
            0x1a, 0xf3, 0x8c, 0x2d, 0xc2, 0xb9, 0x6f, 0xfd, 0xd8, 0x66, 0x94, 0x09, 0x23, 0x41,
            0xbc, 0x04,
        ];
        let aad = b"The second principle of Auguste Kerckhoffs";
        let sealed = encrypt(&key, "A128CBC-HS256", text, &nonce, aad).expect("encrypts");
        let tag = [
            0x65, 0x2c, 0x3f, 0xa3, 0x6b, 0x0a, 0x7c, 0x5b, 0x32, 0x19, 0xfa, 0xb3, 0xa3, 0x0b,
            0xc1, 0xc4,
        ];
        assert_eq!(sealed.tag, tag);
        assert_eq!(sealed.data[..4], [0xc8, 0x0e, 0xdf, 0xa3]);
    }
}
