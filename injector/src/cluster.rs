//! Objects that the webhook reads for an admission.

use outrider_crds::annotations;
use outrider_crds::{Component, Configuration, decode};
use outrider_k8s::objects::{self, Collection};
use outrider_k8s::{Client, Error};
use serde_json::Value;

use crate::patch::Declared;

/// The control plane's Configuration.
const SYSTEM: &str = "daprsystem";

/// Whether sidecars use mTLS: unless the control plane's Configuration disables it. If it cannot be read, they do.
pub async fn mtls(client: &Client, namespace: &str) -> bool {
    let found = match Collection::CONFIGURATIONS.object(namespace, SYSTEM) {
        Ok(path) => objects::get(client, &path).await,
        Err(error) => Err(error.into()),
    };
    let configuration = match found {
        Ok(Some(object)) => decode::from_value::<Configuration>(&object).ok(),
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(target: "dapr.injector", "cannot read configuration {namespace}/{SYSTEM}, assuming mTLS: {error}");
            None
        }
    };
    configuration
        .and_then(|it| it.spec.mtls)
        .and_then(|mtls| mtls.enabled)
        .unwrap_or(true)
}

/// The Components of a namespace that bring their container.
pub async fn declared(client: &Client, namespace: &str) -> Result<Vec<Declared>, Error> {
    let objects = objects::list(client, &Collection::COMPONENTS.path(Some(namespace))?, "").await?;
    Ok(objects.iter().filter_map(read_declared).collect())
}

/// Nothing of a Component without a container.
fn read_declared(object: &Value) -> Option<Declared> {
    let component: Component = decode::from_value(object).ok()?;
    let container = annotations::COMPONENT_CONTAINER
        .read(&component.metadata.annotations)?
        .to_owned();
    Some(Declared {
        name: component.metadata.name,
        scopes: component.scopes,
        container,
    })
}
