//! Documents in the format `dapr.io/enc/v1`: a header in three lines, then
//! segments of 64 KiB, each encrypted by itself, so that a document of any size
//! passes through a few buffers.
//! <https://docs.dapr.io/developing-applications/building-blocks/cryptography/cryptography-overview/>

pub mod header;
pub mod key;
pub mod segments;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use header::{Cipher, Header, Manifest, Wrapping};
use key::FileKey;
use segments::Segments;

/// Why a document cannot be encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

/// What comes in, in pieces of any size.
pub type Source = BoxStream<'static, Result<Bytes>>;

/// A document on its way, encrypted or decrypted.
pub struct Document {
    header: Option<Bytes>,
    segments: Segments,
}

/// How a document is to be encrypted.
pub struct Options {
    pub key_name: String,
    pub wrapping: Wrapping,
    pub cipher: Cipher,
    /// The name that the header has for the key, if it has one.
    pub shown_name: Option<String>,
}

impl Options {
    /// Of the words of a request. Case does not count in algorithms.
    pub fn new(key_name: String, wrapping: &str, cipher: &str) -> Result<Self> {
        let wrapping = wrapping.to_uppercase();
        let wrapping = Wrapping::named(&wrapping).ok_or_else(|| {
            Failure::new(format!(
                "option Algorithm is not valid: algorithm {wrapping} is not supported"
            ))
        })?;
        let cipher = match cipher.to_uppercase().as_str() {
            "" => Cipher::AesGcm,
            cipher => Cipher::named(cipher).ok_or_else(|| {
                Failure::new(format!(
                    "option Cipher is not valid: cipher {cipher} is not supported"
                ))
            })?,
        };
        Ok(Self {
            shown_name: Some(key_name.clone()),
            key_name,
            wrapping,
            cipher,
        })
    }

    /// What the header says of the key: nothing, this name, or that of the key
    /// itself.
    pub fn showing(mut self, omits: bool, name: String) -> Self {
        if omits {
            self.shown_name = None;
        } else if !name.is_empty() {
            self.shown_name = Some(name);
        }
        self
    }
}

/// Encrypts what comes from `source`. The header has the key of the document,
/// encrypted by the key that the options name.
pub fn encrypt(
    options: &Options,
    key: &FileKey,
    wrapped: Vec<u8>,
    source: Source,
) -> Result<Document> {
    let manifest = Manifest {
        key_name: options.shown_name.clone(),
        wrapping: options.wrapping,
        wrapped,
        cipher: options.cipher,
        nonce_prefix: key.nonce_prefix(),
    };
    Ok(Document {
        header: Some(header::write(&manifest, key)?),
        segments: Segments::sealing(key.payload()?, source),
    })
}

/// A document whose header was read.
pub struct Begun {
    header: Header,
    pub manifest: Manifest,
    /// The name of the key that decrypts the one of the document.
    pub key_name: String,
    source: Source,
}

/// Reads the header of a document. `key_name` counts before the name in it.
pub async fn begin(key_name: &str, source: Source) -> Result<Begun> {
    let invalid = |cause: Failure| Failure::new(format!("invalid header: {cause}"));
    let (header, source) = header::read(source).await.map_err(invalid)?;
    let manifest = header.manifest().map_err(invalid)?;
    let key_name = match key_name {
        "" => manifest.key_name.clone().unwrap_or_default(),
        given => given.to_owned(),
    };
    if key_name.is_empty() {
        return Err(Failure::new(
            "document's manifest does not contain a key name, and no key name was provided",
        ));
    }
    Ok(Begun {
        header,
        manifest,
        key_name,
        source,
    })
}

impl Begun {
    /// Decrypts the document with its key. Bytes that are no key answer as a
    /// wrong one does: nobody learns whether there was a key.
    pub fn decrypt(self, key: &[u8]) -> Result<Document> {
        let key = FileKey::import(key, &self.manifest);
        self.header.check(&key)?;
        Ok(Document {
            header: None,
            segments: Segments::opening(key.payload()?, self.source),
        })
    }
}

impl Document {
    /// What comes next. Nothing of a segment is given before all of it is
    /// known to be right.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.header.take() {
            Some(header) => Ok(Some(header)),
            None => self.segments.next().await,
        }
    }
}
