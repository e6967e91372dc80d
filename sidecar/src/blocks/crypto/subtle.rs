//! Single operations on keys. Of failures only so much is told as helps nobody
//! to learn something about a key; the log has the rest, at debug.

use outrider_components::Error as Cause;
use outrider_components::crypto::{Sealed, With};
use outrider_components_keys::{Form, Key};
use outrider_metrics::component::Operation;
use outrider_proto::runtime::v1 as wire;
use wire::subtle_get_key_request::KeyFormat;

use super::{Api, error};
use crate::blocks::error::{Error, Result};

fn failed(what: &'static str) -> impl FnOnce(Cause) -> Error {
    move |cause| {
        tracing::debug!("{what}: {cause}");
        error::operation(what)
    }
}

impl Api {
    /// The public half of a key.
    pub async fn get_key(
        &self,
        request: wire::SubtleGetKeyRequest,
    ) -> Result<wire::SubtleGetKeyResponse> {
        let provider = self.provider(&request.component_name)?;
        let Ok(format) = KeyFormat::try_from(request.format) else {
            return Err(error::bad_request("invalid key format"));
        };
        let name = &request.name;
        let getting = provider.call(|provider| provider.public_key(name));
        let key = provider.count(Operation::Get, getting).await;
        let key = key.map_err(|cause| error::key(name, cause))?;
        Ok(wire::SubtleGetKeyResponse {
            name: key.id.unwrap_or_else(|| name.clone()),
            public_key: match format {
                KeyFormat::Pem => key.pem,
                KeyFormat::Json => key.jwk,
            },
        })
    }

    pub async fn subtle_encrypt(
        &self,
        request: wire::SubtleEncryptRequest,
    ) -> Result<wire::SubtleEncryptResponse> {
        let provider = self.provider(&request.component_name)?;
        let with = With {
            key: &request.key_name,
            algorithm: &request.algorithm,
            nonce: &request.nonce,
            associated_data: &request.associated_data,
        };
        let work = provider.call(|provider| provider.encrypt(&with, &request.plaintext));
        let sealed = provider.count(Operation::Crypto, work).await;
        let Sealed { data, tag } = sealed.map_err(failed("failed to encrypt"))?;
        Ok(wire::SubtleEncryptResponse {
            ciphertext: data.into(),
            tag: tag.into(),
        })
    }

    pub async fn subtle_decrypt(
        &self,
        request: wire::SubtleDecryptRequest,
    ) -> Result<wire::SubtleDecryptResponse> {
        let provider = self.provider(&request.component_name)?;
        let with = With {
            key: &request.key_name,
            algorithm: &request.algorithm,
            nonce: &request.nonce,
            associated_data: &request.associated_data,
        };
        let sealed = Sealed {
            data: request.ciphertext.to_vec(),
            tag: request.tag.to_vec(),
        };
        let work = provider.call(|provider| provider.decrypt(&with, &sealed));
        let plaintext = provider.count(Operation::Crypto, work).await;
        let plaintext = plaintext.map_err(failed("failed to decrypt"))?;
        Ok(wire::SubtleDecryptResponse {
            plaintext: plaintext.into(),
        })
    }

    pub async fn wrap_key(
        &self,
        request: wire::SubtleWrapKeyRequest,
    ) -> Result<wire::SubtleWrapKeyResponse> {
        let provider = self.provider(&request.component_name)?;
        let invalid =
            |cause: Cause| error::operation(cause.context("failed to parse plaintext key"));
        let key = Key::parse(&request.plaintext_key, Form::Unknown).map_err(invalid)?;
        let key = key.serialize().map_err(|refusal| invalid(refusal.into()))?;
        let with = With {
            key: &request.key_name,
            algorithm: &request.algorithm,
            nonce: &request.nonce,
            associated_data: &request.associated_data,
        };
        let work = provider.call(|provider| provider.wrap_key(&with, &key));
        let sealed = provider.count(Operation::Crypto, work).await;
        let Sealed { data, tag } = sealed.map_err(failed("failed to wrap key"))?;
        Ok(wire::SubtleWrapKeyResponse {
            wrapped_key: data.into(),
            tag: tag.into(),
        })
    }

    pub async fn unwrap_key(
        &self,
        request: wire::SubtleUnwrapKeyRequest,
    ) -> Result<wire::SubtleUnwrapKeyResponse> {
        let provider = self.provider(&request.component_name)?;
        let with = With {
            key: &request.key_name,
            algorithm: &request.algorithm,
            nonce: &request.nonce,
            associated_data: &request.associated_data,
        };
        let sealed = Sealed {
            data: request.wrapped_key.to_vec(),
            tag: request.tag.to_vec(),
        };
        let work = provider.call(|provider| provider.unwrap_key(&with, &sealed));
        let key = provider.count(Operation::Crypto, work).await;
        let key = key.map_err(failed("failed to unwrap key"))?;
        Ok(wire::SubtleUnwrapKeyResponse {
            plaintext_key: key.into(),
        })
    }

    pub async fn sign(&self, request: wire::SubtleSignRequest) -> Result<wire::SubtleSignResponse> {
        let provider = self.provider(&request.component_name)?;
        let with = With {
            key: &request.key_name,
            algorithm: &request.algorithm,
            ..With::default()
        };
        let work = provider.call(|provider| provider.sign(&with, &request.digest));
        let signature = provider.count(Operation::Crypto, work).await;
        let signature = signature.map_err(failed("failed to sign"))?;
        Ok(wire::SubtleSignResponse {
            signature: signature.into(),
        })
    }

    pub async fn verify(
        &self,
        request: wire::SubtleVerifyRequest,
    ) -> Result<wire::SubtleVerifyResponse> {
        let provider = self.provider(&request.component_name)?;
        let with = With {
            key: &request.key_name,
            algorithm: &request.algorithm,
            ..With::default()
        };
        let work =
            provider.call(|provider| provider.verify(&with, &request.digest, &request.signature));
        let valid = provider.count(Operation::Crypto, work).await;
        let valid = valid.map_err(failed("failed to verify signature"))?;
        Ok(wire::SubtleVerifyResponse { valid })
    }
}
