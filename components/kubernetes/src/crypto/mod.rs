//! `crypto.dapr.kubernetes.secrets`: <https://docs.dapr.io/reference/components-reference/supported-cryptography/kubernetes-secrets/>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use outrider_components::crypto::Crypto;
use outrider_components::{Context, Error, Field, Metadata};
use outrider_components_keys::{Form, Key, Keys, Local, not_found};

use crate::client;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, client::Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Namespace of the secrets of keys that are named `secret/key`, and not
        /// `namespace/secret/key`.
        "defaultNamespace" => default_namespace: Option<String>;
    }
}

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(30);

struct Secrets {
    client: Client,
    default_namespace: Option<String>,
}

/// Makes the client. Sends no request yet.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Crypto>, Error> {
    let fields = Fields::read(&metadata)?;
    let client = client::connect(&client::Fields::read(&metadata)?, &context).await?;
    Ok(Arc::new(Local(Secrets {
        client,
        default_namespace: fields.default_namespace,
    })))
}

impl Secrets {
    /// Namespace, secret and key of a name.
    fn split<'a>(&'a self, name: &'a str) -> Result<[&'a str; 3], Error> {
        let parts: Vec<&str> = name.split('/').collect();
        let (namespace, secret, key) = match parts[..] {
            [namespace, secret, key] => (namespace, secret, key),
            [secret, key] => {
                let namespace = self.default_namespace.as_deref();
                (namespace.unwrap_or_default(), secret, key)
            }
            _ => {
                return Err(Error::invalid(
                    "key is not in a valid format: required namespace/secretName/key or secretName/key",
                ));
            }
        };
        if namespace.is_empty() {
            return Err(Error::invalid(
                "key doesn't have a namespace and the default namespace isn't set",
            ));
        }
        Ok([namespace, secret, key])
    }
}

#[async_trait]
impl Keys for Secrets {
    /// Reads the secret every time, so that a new key is in use at once.
    async fn key(&self, name: &str) -> Result<Arc<Key>, Error> {
        let [namespace, secret, key] = self.split(name)?;
        let reading = client::read::<Secret>(&self.client, namespace, Some(secret), "");
        let read = tokio::time::timeout(LIMIT, reading).await;
        let secret = read.map_err(|_| {
            Error::unavailable(format!(
                "the API server has not answered within {} s",
                LIMIT.as_secs()
            ))
        })??;
        let form = Form::of_content_type(secret.type_.as_deref().unwrap_or_default());
        let data = secret.data.unwrap_or_default();
        let bytes = data.get(key).filter(|bytes| !bytes.0.is_empty());
        let bytes = bytes.ok_or_else(not_found)?;
        let parsed = Key::parse(&bytes.0, form);
        let parsed = parsed.map_err(|cause| cause.context("failed to parse key from secret"))?;
        Ok(Arc::new(parsed))
    }
}

#[cfg(test)]
mod tests;
