//! `secretstores.kubernetes`: <https://docs.dapr.io/reference/components-reference/supported-secret-stores/kubernetes-secret-store/>.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::core::ObjectList;
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::client;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, client::Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Namespace of the secrets, where neither the request nor the sidecar
        /// has one.
        "defaultNamespace" => default_namespace: Option<String>;
    }
}

/// Secrets per answer of the API, so that neither side holds them all.
const PAGE_SIZE: u32 = 100;

struct Kubernetes {
    client: Client,
    /// The namespace of requests that name none.
    namespace: Option<String>,
}

/// Makes the client. Sends no request yet.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    let client = client::connect(&client::Fields::read(&metadata)?, &context).await?;
    Ok(Arc::new(Kubernetes::new(client, fields, &context)))
}

impl Kubernetes {
    fn new(client: Client, fields: Fields, context: &Context) -> Kubernetes {
        let own = Some(context.namespace.clone()).filter(|namespace| !namespace.is_empty());
        Kubernetes {
            client,
            namespace: own.or(fields.default_namespace),
        }
    }

    fn namespace<'a>(&'a self, metadata: &'a Pairs) -> Result<&'a str, Error> {
        let namespace = metadata
            .get("namespace")
            .filter(|namespace| !namespace.is_empty())
            .or(self.namespace.as_ref())
            .ok_or_else(|| {
                Error::invalid(
                    "namespace is missing on metadata and NAMESPACE env variable, and no default namespace is set",
                )
            })?;
        Ok(namespace)
    }

    /// Reads one secret, or a page of all.
    async fn read<T: DeserializeOwned>(
        &self,
        metadata: &Pairs,
        name: Option<&str>,
        query: &str,
    ) -> Result<T, Error> {
        client::read(&self.client, self.namespace(metadata)?, name, query).await
    }
}

fn pairs(secret: Secret) -> Pairs {
    secret
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

#[async_trait]
impl Store for Kubernetes {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn get(&self, request: &GetRequest) -> Result<Pairs, Error> {
        let secret = self.read(&request.metadata, Some(&request.name), "");
        secret.await.map(pairs)
    }

    async fn bulk_get(&self, metadata: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
        let mut query = format!("?limit={PAGE_SIZE}");
        let mut all = HashMap::new();
        loop {
            let list: ObjectList<Secret> = self.read(metadata, None, &query).await?;
            let next = list.metadata.continue_.filter(|next| !next.is_empty());
            for mut secret in list.items {
                let name = secret.metadata.name.take().unwrap_or_default();
                all.insert(name, pairs(secret));
            }
            match next {
                Some(next) => {
                    let next = utf8_percent_encode(&next, NON_ALPHANUMERIC);
                    query = format!("?limit={PAGE_SIZE}&continue={next}");
                }
                None => return Ok(all),
            }
        }
    }
}

#[cfg(test)]
mod tests;
