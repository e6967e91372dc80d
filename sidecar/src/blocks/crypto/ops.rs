//! What encrypting and decrypting a document means.

use std::sync::Arc;

use outrider_components::crypto::{Sealed, With};
use outrider_metrics::component::Operation;
use zeroize::Zeroizing;

use super::document::key::FileKey;
use super::document::{self, Document, Options, Source};
use super::{Api, Provider, error};
use crate::blocks::error::Result;

impl Api {
    pub(super) fn provider(&self, name: &str) -> Result<Arc<Provider>> {
        let providers = self.providers.load();
        if providers.is_empty() {
            return Err(error::not_configured());
        }
        if name.is_empty() {
            return Err(error::bad_request("missing component name"));
        }
        let found = providers.get(name).cloned();
        found.ok_or_else(|| error::not_found(name))
    }
}

/// Encrypts what comes from `source`.
pub(super) async fn encrypt(
    provider: &Provider,
    options: &Options,
    source: Source,
) -> Result<Document> {
    let key = FileKey::new(options.cipher).map_err(error::operation)?;
    let with = With {
        key: &options.key_name,
        algorithm: options.wrapping.name(),
        ..With::default()
    };
    let wrapping = provider.call(|provider| provider.wrap_key(&with, key.bytes()));
    let wrapped = provider.count(Operation::Crypto, wrapping).await;
    let wrapped =
        wrapped.map_err(|cause| error::operation(cause.context("failed to wrap the file key")))?;
    // What the format has as algorithms have no tags.
    document::encrypt(options, &key, wrapped.data, source).map_err(error::operation)
}

/// Decrypts what comes from `source`, with the key of this name, or the one
/// that the document names.
pub(super) async fn decrypt(
    provider: &Provider,
    key_name: &str,
    source: Source,
) -> Result<Document> {
    let begun = document::begin(key_name, source).await;
    let begun = begun.map_err(error::operation)?;
    let with = With {
        key: &begun.key_name,
        algorithm: begun.manifest.wrapping.name(),
        ..With::default()
    };
    let sealed = Sealed {
        data: begun.manifest.wrapped.clone(),
        tag: Vec::new(),
    };
    let unwrapping = provider.call(|provider| provider.unwrap_key(&with, &sealed));
    let unwrapped = provider.count(Operation::Crypto, unwrapping).await;
    let key = Zeroizing::new(unwrapped.unwrap_or_else(|cause| {
        tracing::debug!("the key of a document cannot be unwrapped: {cause}");
        Vec::new()
    }));
    begun.decrypt(&key).map_err(error::operation)
}
