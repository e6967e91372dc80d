//! A component of cryptography that only has to find keys.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::crypto::{Crypto, PublicKey, Sealed, With};
use outrider_components::{Error, Kind};

use crate::{Key, Refusal, jwk, not_found, pem, rsa, sign, symmetric};

/// Where keys are found.
#[async_trait]
pub trait Keys: Send + Sync {
    /// The key of this name.
    async fn key(&self, name: &str) -> Result<Arc<Key>, Error>;

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Works with keys that are found somewhere.
pub struct Local<K>(pub K);

impl<K: Keys> Local<K> {
    /// A key that may be used so.
    async fn key(&self, with: &With<'_>, operation: &str, what: &str) -> Result<Arc<Key>, Error> {
        let found = self.0.key(with.key).await;
        let key =
            found.map_err(|cause| cause.context(&format!("failed to retrieve the {what}")))?;
        if !key.allows(operation) {
            return Err(Error::new(
                Kind::Invalid,
                format!("key cannot perform the '{operation}' operation"),
            ));
        }
        if !key.allows_algorithm(with.algorithm) {
            return Err(Error::new(
                Kind::Invalid,
                format!("key cannot be used with algorithm '{}'", with.algorithm),
            ));
        }
        Ok(key)
    }
}

fn seal(key: &Key, with: &With<'_>, plaintext: &[u8]) -> Result<Sealed, Error> {
    let With {
        algorithm,
        nonce,
        associated_data,
        ..
    } = *with;
    let sealed = if symmetric::is_one(algorithm) {
        key.symmetric()
            .and_then(|key| symmetric::encrypt(key, algorithm, plaintext, nonce, associated_data))
    } else if rsa::is_one(algorithm) {
        rsa::encrypt(key, algorithm, plaintext, associated_data).map(|data| Sealed {
            data,
            tag: Vec::new(),
        })
    } else {
        Err(Refusal::Algorithm)
    };
    sealed.map_err(|refusal| Error::from(refusal).context("failed to encrypt data"))
}

fn open(key: &Key, with: &With<'_>, sealed: &Sealed) -> Result<Vec<u8>, Error> {
    let With {
        algorithm,
        nonce,
        associated_data,
        ..
    } = *with;
    let opened = if symmetric::is_one(algorithm) {
        key.symmetric()
            .and_then(|key| symmetric::decrypt(key, algorithm, sealed, nonce, associated_data))
    } else if rsa::is_one(algorithm) {
        rsa::decrypt(key, algorithm, &sealed.data, associated_data)
    } else {
        Err(Refusal::Algorithm)
    };
    opened.map_err(|refusal| Error::from(refusal).context("failed to decrypt data"))
}

#[async_trait]
impl<K: Keys> Crypto for Local<K> {
    async fn public_key(&self, name: &str) -> Result<PublicKey, Error> {
        let key = self.0.key(name).await?;
        // A symmetric key does not show, not even that it exists.
        let der = key.public_der().map_err(|_| not_found())?;
        Ok(PublicKey {
            id: key.id().map(str::to_owned),
            pem: pem::write("PUBLIC KEY", &der),
            jwk: jwk::public(&key)?,
        })
    }

    async fn encrypt(&self, with: &With<'_>, plaintext: &[u8]) -> Result<Sealed, Error> {
        let key = self.key(with, "encrypt", "key").await?;
        seal(&key, with, plaintext)
    }

    async fn decrypt(&self, with: &With<'_>, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        let key = self.key(with, "decrypt", "key").await?;
        open(&key, with, sealed)
    }

    async fn wrap_key(&self, with: &With<'_>, plaintext: &[u8]) -> Result<Sealed, Error> {
        let key = self.key(with, "wrapKey", "key encryption key").await?;
        seal(&key, with, plaintext)
    }

    async fn unwrap_key(&self, with: &With<'_>, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        let key = self.key(with, "unwrapKey", "key encryption key").await?;
        open(&key, with, sealed)
    }

    async fn sign(&self, with: &With<'_>, digest: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.key(with, "sign", "key").await?;
        sign::sign(&key, with.algorithm, digest)
            .map_err(|refusal| Error::from(refusal).context("failed to sign message"))
    }

    async fn verify(
        &self,
        with: &With<'_>,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<bool, Error> {
        let key = self.key(with, "verify", "key").await?;
        sign::verify(&key, with.algorithm, digest, signature)
            .map_err(|refusal| Error::from(refusal).context("failed to validate the signature"))
    }

    async fn close(&self) -> Result<(), Error> {
        self.0.close().await
    }
}
