//! Cryptography with keys that applications do not see:
//! <https://docs.dapr.io/developing-applications/building-blocks/cryptography/>.

use async_trait::async_trait;

use crate::Error;

/// What an operation on a key works with.
#[derive(Debug, Clone, Copy, Default)]
pub struct With<'a> {
    /// The name of the key.
    pub key: &'a str,
    /// The algorithm, such as `RSA-OAEP-256`.
    pub algorithm: &'a str,
    /// Of those algorithms that want one.
    pub nonce: &'a [u8],
    /// What is authenticated besides; empty where there is nothing.
    pub associated_data: &'a [u8],
}

/// What was encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The text, encrypted.
    pub data: Vec<u8>,
    /// By which changes of it are found; empty where the algorithm has none.
    pub tag: Vec<u8>,
}

/// The public half of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// In PEM.
    pub pem: String,
    /// In JSON, as a JWK.
    pub jwk: String,
}

/// A connected store of keys.
#[async_trait]
pub trait Crypto: Send + Sync {
    /// The public half of a key, which has to have one.
    async fn public_key(&self, name: &str) -> Result<PublicKey, Error>;

    /// Encrypts a short text.
    async fn encrypt(&self, with: &With<'_>, plaintext: &[u8]) -> Result<Sealed, Error>;

    /// Decrypts it.
    async fn decrypt(&self, with: &With<'_>, sealed: &Sealed) -> Result<Vec<u8>, Error>;

    /// Encrypts a key, which is given as its bytes.
    async fn wrap_key(&self, with: &With<'_>, key: &[u8]) -> Result<Sealed, Error>;

    /// Decrypts it.
    async fn unwrap_key(&self, with: &With<'_>, sealed: &Sealed) -> Result<Vec<u8>, Error>;

    /// Signs a digest. EdDSA signs the whole message instead.
    async fn sign(&self, with: &With<'_>, digest: &[u8]) -> Result<Vec<u8>, Error>;

    /// Whether a signature is that of a digest.
    async fn verify(&self, with: &With<'_>, digest: &[u8], signature: &[u8])
    -> Result<bool, Error>;

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
