//! `secretstores.kubernetes`: <https://docs.dapr.io/reference/components-reference/supported-secret-stores/kubernetes-secret-store/>.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client};
use outrider_components::secrets::{Feature, GetRequest, Store};
use outrider_components::{Context, Error, Metadata, Pairs};

use crate::client::{self, failed};

/// Secrets per answer of the API, so that neither side holds them all.
const PAGE: u32 = 100;

struct Kubernetes {
    client: Client,
    /// Where secrets are looked for when a request does not say.
    namespace: Option<String>,
}

/// Finds the cluster; asks it nothing yet.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Store>, Error> {
    metadata.unique()?;
    let client = client::connect(&metadata, &context).await?;
    Ok(Arc::new(Kubernetes::new(client, &metadata, &context)))
}

impl Kubernetes {
    fn new(client: Client, metadata: &Metadata, context: &Context) -> Kubernetes {
        let own = Some(context.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        Kubernetes {
            client,
            namespace: own.or(metadata.text("defaultNamespace")).map(str::to_owned),
        }
    }

    fn secrets(&self, metadata: &Pairs) -> Result<Api<Secret>, Error> {
        let namespace = metadata
            .get("namespace")
            .filter(|namespace| !namespace.is_empty())
            .or(self.namespace.as_ref())
            .ok_or_else(|| {
                Error::invalid(
                    "namespace is missing on metadata and NAMESPACE env variable, and no default namespace is set",
                )
            })?;
        Ok(Api::namespaced(self.client.clone(), namespace))
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
        let secrets = self.secrets(&request.metadata)?;
        secrets.get(&request.name).await.map(pairs).map_err(failed)
    }

    async fn bulk_get(&self, metadata: &Pairs) -> Result<HashMap<String, Pairs>, Error> {
        let secrets = self.secrets(metadata)?;
        let mut page = ListParams::default().limit(PAGE);
        let mut all = HashMap::new();
        loop {
            let list = secrets.list(&page).await.map_err(failed)?;
            let next = list.metadata.continue_.filter(|next| !next.is_empty());
            for mut secret in list.items {
                let name = secret.metadata.name.take().unwrap_or_default();
                all.insert(name, pairs(secret));
            }
            match next {
                Some(next) => page = page.continue_token(&next),
                None => return Ok(all),
            }
        }
    }
}

#[cfg(test)]
mod tests;
