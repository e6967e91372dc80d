//! The key of a document, and what is derived from it.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::{hkdf, hmac, rand};
use bytes::BytesMut;
use zeroize::Zeroizing;

use super::header::{Cipher, Manifest, NONCE_PREFIX};
use super::{Failure, Result};

const SIZE: usize = 32;

/// The key of one document. No two documents share one.
pub struct FileKey {
    bytes: Zeroizing<[u8; SIZE]>,
    nonce_prefix: [u8; NONCE_PREFIX],
    cipher: Cipher,
}

fn failed<E>(_: E) -> Failure {
    Failure::new("the cryptographic library has failed")
}

impl FileKey {
    /// A random one.
    pub fn new(cipher: Cipher) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; SIZE]);
        let mut nonce_prefix = [0; NONCE_PREFIX];
        rand::fill(&mut bytes[..]).map_err(failed)?;
        rand::fill(&mut nonce_prefix).map_err(failed)?;
        Ok(Self {
            bytes,
            nonce_prefix,
            cipher,
        })
    }

    /// The one that was unwrapped. What is none becomes one of zeros, which no
    /// header fits.
    pub fn import(bytes: &[u8], manifest: &Manifest) -> Self {
        let bytes = <[u8; SIZE]>::try_from(bytes).unwrap_or([0; SIZE]);
        Self {
            bytes: Zeroizing::new(bytes),
            nonce_prefix: manifest.nonce_prefix,
            cipher: manifest.cipher,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..]
    }

    pub fn nonce_prefix(&self) -> [u8; NONCE_PREFIX] {
        self.nonce_prefix
    }

    fn header_key(&self) -> Result<hmac::Key> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
        let derived = salt.extract(&self.bytes[..]);
        let info = [b"header".as_slice()];
        let key = derived.expand(&info, hmac::HMAC_SHA256);
        Ok(key.map_err(failed)?.into())
    }

    pub fn mac(&self, message: &[u8]) -> Result<hmac::Tag> {
        Ok(hmac::sign(&self.header_key()?, message))
    }

    pub fn check(&self, message: &[u8], mac: &[u8]) -> Result<()> {
        hmac::verify(&self.header_key()?, message, mac)
            .map_err(|_| Failure::new("failed to validate the document's signature"))
    }

    /// What encrypts the segments.
    pub fn payload(&self) -> Result<PayloadKey> {
        let algorithm: &'static Algorithm = match self.cipher {
            Cipher::AesGcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &self.nonce_prefix);
        let derived = salt.extract(&self.bytes[..]);
        let info = [b"payload".as_slice()];
        let key = derived.expand(&info, algorithm).map_err(failed)?;
        Ok(PayloadKey {
            key: LessSafeKey::new(UnboundKey::from(key)),
            nonce_prefix: self.nonce_prefix,
        })
    }
}

/// Encrypts and decrypts the segments of one document.
pub struct PayloadKey {
    key: LessSafeKey,
    nonce_prefix: [u8; NONCE_PREFIX],
}

impl PayloadKey {
    /// Tells segments apart, and the last one from the others: none can be
    /// moved or cut off.
    fn nonce(&self, index: u32, is_last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..NONCE_PREFIX].copy_from_slice(&self.nonce_prefix);
        nonce[NONCE_PREFIX..NONCE_LEN - 1].copy_from_slice(&index.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(is_last);
        Nonce::assume_unique_for_key(nonce)
    }

    pub fn seal(&self, index: u32, is_last: bool, segment: &mut BytesMut) -> Result<()> {
        let nonce = self.nonce(index, is_last);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), segment);
        let tag = tag.map_err(|_| Failure::new("failed to encrypt segment"))?;
        segment.extend_from_slice(tag.as_ref());
        Ok(())
    }

    pub fn open(&self, index: u32, is_last: bool, segment: &mut BytesMut) -> Result<()> {
        let nonce = self.nonce(index, is_last);
        let opened = self.key.open_in_place(nonce, Aad::empty(), segment);
        let size = opened
            .map_err(|_| Failure::new("failed to decrypt segment"))?
            .len();
        segment.truncate(size);
        Ok(())
    }
}
