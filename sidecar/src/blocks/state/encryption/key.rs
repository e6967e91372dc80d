//! One key.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use bytes::Bytes;
use outrider_components::Error as Cause;

pub struct Key {
    /// Of its secret. It stands beside every value.
    pub name: String,
    cipher: LessSafeKey,
}

impl Key {
    /// A key from the hexadecimal text of its 16, 24 or 32 bytes.
    pub fn new(name: &str, text: &str) -> Result<Self, String> {
        let bytes = bytes_of(text)?;
        let algorithm = match bytes.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            other => return Err(invalid_size(other)),
        };
        let key = UnboundKey::new(algorithm, &bytes).map_err(|_| invalid_size(bytes.len()))?;
        Ok(Self {
            name: name.to_owned(),
            cipher: LessSafeKey::new(key),
        })
    }

    /// A random nonce, the encrypted value, its tag.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Cause> {
        let failed = |_| Cause::internal("the value cannot be encrypted");
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(failed)?;
        let tag_length = self.cipher.algorithm().tag_len();
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + tag_length);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut sealed[NONCE_LEN..])
            .map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// What was sealed, if that was with this key and is whole.
    pub fn open(&self, sealed: &[u8]) -> Option<Bytes> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let plain = self.cipher.open_in_place(nonce, Aad::empty(), &mut opened);
        let length = plain.ok()?.len();
        opened.truncate(length);
        Some(Bytes::from(opened))
    }
}

fn invalid_size(length: usize) -> String {
    format!("crypto/aes: invalid key size {length}")
}

fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| {
        let digit = char::from(byte).to_digit(16);
        digit.and_then(|digit| u8::try_from(digit).ok())
    };
    // The texts are those of Go's library.
    if let Some(wrong) = text.bytes().find(|byte| digit(*byte).is_none()) {
        let shown = match char::from(wrong) {
            shown if shown.is_control() => String::new(),
            shown => format!(" '{shown}'"),
        };
        return Err(format!("encoding/hex: invalid byte: U+{wrong:04X}{shown}"));
    }
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err("encoding/hex: odd length hex string".to_owned());
    }
    let byte = |[high, low]: &[u8; 2]| {
        let (high, low) = (digit(*high), digit(*low));
        high.unwrap_or_default() << 4 | low.unwrap_or_default()
    };
    Ok(pairs.iter().map(byte).collect())
}
