//! The header of a document: the name of the format, a manifest in JSON, and a
//! MAC of both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::key::FileKey;
use super::{Failure, Result, Source};
use crate::blocks::json;

const FORMAT: &str = "dapr.io/enc/v1";
/// Bytes that a header may have.
const LONGEST: usize = 64 << 10;
/// Random bytes that the nonces of a document begin with.
pub const NONCE_PREFIX: usize = 7;

/// How the key of a document is encrypted. The numbers are those of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    A256Kw = 1,
    A128Cbc = 2,
    A192Cbc = 3,
    A256Cbc = 4,
    RsaOaep256 = 5,
}

impl Wrapping {
    const ALL: [Self; 5] = [
        Self::A256Kw,
        Self::A128Cbc,
        Self::A192Cbc,
        Self::A256Cbc,
        Self::RsaOaep256,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::A256Kw => "A256KW",
            Self::A128Cbc => "A128CBC-NOPAD",
            Self::A192Cbc => "A192CBC-NOPAD",
            Self::A256Cbc => "A256CBC-NOPAD",
            Self::RsaOaep256 => "RSA-OAEP-256",
        }
    }

    /// `AES` and `RSA` are short names.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "AES" => Some(Self::A256Kw),
            "RSA" => Some(Self::RsaOaep256),
            _ => Self::ALL.into_iter().find(|one| one.name() == name),
        }
    }
}

/// How the segments of a document are encrypted. The numbers are those of the
/// format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    AesGcm = 1,
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    const ALL: [Self; 2] = [Self::AesGcm, Self::ChaCha20Poly1305];

    pub fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "AES-GCM",
            Self::ChaCha20Poly1305 => "CHACHA20-POLY1305",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What a document says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The key to decrypt it with.
    pub key_name: Option<String>,
    pub wrapping: Wrapping,
    /// The key of the document, encrypted.
    pub wrapped: Vec<u8>,
    pub cipher: Cipher,
    pub nonce_prefix: [u8; NONCE_PREFIX],
}

/// The manifest as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<String>,
    kw: u8,
    wfk: String,
    cph: u8,
    np: String,
}

impl Manifest {
    pub fn write(&self) -> Vec<u8> {
        json::to_vec(&Written {
            k: self.key_name.clone(),
            kw: self.wrapping as u8,
            wfk: STANDARD.encode(&self.wrapped),
            cph: self.cipher as u8,
            np: STANDARD.encode(self.nonce_prefix),
        })
    }

    /// None for everything but a right manifest: the caller does not learn what is wrong.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(line).ok()?;
        let wrapped = STANDARD.decode(&written.wfk).ok()?;
        Some(Self {
            key_name: written.k.filter(|name| !name.is_empty()),
            wrapping: Wrapping::ALL.into_iter().find(|w| *w as u8 == written.kw)?,
            wrapped: Some(wrapped).filter(|wrapped| !wrapped.is_empty())?,
            cipher: Cipher::ALL.into_iter().find(|c| *c as u8 == written.cph)?,
            nonce_prefix: STANDARD.decode(&written.np).ok()?.try_into().ok()?,
        })
    }
}

/// The header of a document, complete.
pub fn write(manifest: &Manifest, key: &FileKey) -> Result<Bytes> {
    let mut header = BytesMut::from(FORMAT);
    header.extend_from_slice(b"\n");
    header.extend_from_slice(&manifest.write());
    header.extend_from_slice(b"\n");
    let mac = key.mac(&header)?;
    header.extend_from_slice(STANDARD.encode(mac).as_bytes());
    header.extend_from_slice(b"\n");
    if header.len() > LONGEST {
        return Err(Failure::new("failed to sign header: header is too long"));
    }
    Ok(header.freeze())
}

/// A header that was read: what the MAC is of, and the MAC.
pub struct Header {
    /// Both lines with their ends.
    signed: Bytes,
    mac: Bytes,
}

impl Header {
    pub fn manifest(&self) -> Result<Manifest> {
        let line = self.signed.get(FORMAT.len() + 1..self.signed.len() - 1);
        let manifest = line.and_then(Manifest::parse);
        manifest.ok_or_else(|| Failure::new("invalid manifest"))
    }

    /// Whether the key is that of the document.
    pub fn check(&self, key: &FileKey) -> Result<()> {
        let mac = STANDARD.decode(&self.mac).map_err(|cause| {
            Failure::new(format!("failed to decode header's signature: {cause}"))
        })?;
        key.check(&self.signed, &mac)
    }
}

/// Reads the header that a document begins with, and gives what follows.
pub async fn read(mut source: Source) -> Result<(Header, Source)> {
    let mut buffer = BytesMut::new();
    let mut lines = Lines::default();
    while !lines.search(&buffer)? && buffer.len() < LONGEST {
        match source.next().await {
            Some(piece) => buffer.extend_from_slice(&piece?),
            None => break,
        }
    }
    let [_, manifest, end] = lines.ends;
    match lines.found {
        0 => Err(Failure::new("scheme name not found")),
        1 => Err(Failure::new("manifest not found")),
        2 => Err(Failure::new("message authentication code not found")),
        _ if end >= LONGEST => Err(Failure::new("message authentication code not found")),
        _ => {
            let signed = buffer.split_to(manifest + 1).freeze();
            let mut mac = buffer.split_to(end - manifest).freeze();
            mac.truncate(mac.len() - 1);
            let rest = buffer.freeze();
            let rest = Some(rest).filter(|rest| !rest.is_empty()).map(Ok);
            let source = stream::iter(rest).chain(source).boxed();
            Ok((Header { signed, mac }, source))
        }
    }
}

/// Where the lines of a header end.
#[derive(Default)]
struct Lines {
    ends: [usize; 3],
    found: usize,
    searched: usize,
}

impl Lines {
    /// Goes on where it was. Whether all lines are there.
    fn search(&mut self, buffer: &[u8]) -> Result<bool> {
        while self.found < self.ends.len() {
            let unread = buffer.get(self.searched..).unwrap_or_default();
            let Some(at) = unread.iter().position(|byte| *byte == b'\n') else {
                self.searched = buffer.len();
                return Ok(false);
            };
            let end = self.searched + at;
            let begin = match self.found {
                0 => 0,
                found => self.ends[found - 1] + 1,
            };
            if end == begin {
                return Err(Failure::new("invalid format"));
            }
            if self.found == 0 && &buffer[..end] != FORMAT.as_bytes() {
                return Err(Failure::new("unsupported scheme"));
            }
            self.ends[self.found] = end;
            self.found += 1;
            self.searched = end + 1;
        }
        Ok(true)
    }
}
