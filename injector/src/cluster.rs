//! What the webhook has to look up for an admission.

use outrider_crds::annotations;
use outrider_crds::{Component, Configuration, Kind, decode};
use outrider_k8s::objects::{self, Collection};
use outrider_k8s::{Client, Error};
use serde_json::Value;

use crate::patch::Declared;

const CONFIGURATIONS: Collection = Collection {
    version: "/apis/dapr.io/v1alpha1",
    plural: Configuration::PLURAL,
};
const COMPONENTS: Collection = Collection {
    version: "/apis/dapr.io/v1alpha1",
    plural: Component::PLURAL,
};
/// The control plane's Configuration.
const SYSTEM: &str = "daprsystem";

/// Whether sidecars talk over mTLS. On unless the control plane's Configuration can be read and says otherwise.
pub async fn mtls(client: &Client, namespace: &str) -> bool {
    let getting = async {
        let path = CONFIGURATIONS.object(namespace, SYSTEM)?;
        objects::get(client, &path).await
    };
    let configuration = match getting.await {
        Ok(Some(object)) => decode::from_value::<Configuration>(&object).ok(),
        Ok(None) => None,
        Err(error) => {
            let error: Error = error;
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
    let objects = objects::list(client, &COMPONENTS.path(Some(namespace))?, "").await?;
    Ok(objects.iter().filter_map(bringing_a_container).collect())
}

fn bringing_a_container(object: &Value) -> Option<Declared> {
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
