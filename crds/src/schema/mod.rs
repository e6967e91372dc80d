//! The definitions of the kinds for the API server: names and versions from here, fields from the types.

mod structural;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{
    Component, Configuration, GROUP, HttpEndpoint, Kind, McpServer, Resiliency, Subscription,
    WorkflowAccessPolicy, subscription,
};

/// A definition and the name of its file, which installers fetch it by.
pub struct Definition {
    pub file: &'static str,
    pub object: Value,
}

/// All of them.
pub fn definitions() -> Vec<Definition> {
    let mut subscription = definition::<Subscription>("subscription.yaml");
    let versions = &mut subscription.object["spec"]["versions"];
    let stored = versions[0].take();
    *versions = json!([
        version::<subscription::v1alpha1::Subscription>("v1alpha1", false),
        stored
    ]);
    subscription.object["spec"]["conversion"] = json!({
        "strategy": "Webhook",
        "webhook": {
            "conversionReviewVersions": ["v1", "v2alpha1"],
            // The operator writes its own namespace and certificate authority here.
            "clientConfig": {"service": {"namespace": "replaceme", "name": "dapr-webhook", "path": "/convert"}},
        },
    });
    vec![
        definition::<Component>("components.yaml"),
        definition::<Configuration>("configuration.yaml"),
        definition::<HttpEndpoint>("httpendpoints.yaml"),
        definition::<McpServer>("mcpservers.yaml"),
        definition::<Resiliency>("resiliency.yaml"),
        subscription,
        definition::<WorkflowAccessPolicy>("workflowaccesspolicy.yaml"),
    ]
}

fn definition<T: Kind + JsonSchema>(file: &'static str) -> Definition {
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{GROUP}", T::PLURAL),
            "labels": {"app.kubernetes.io/part-of": "dapr"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": T::KIND,
                "listKind": format!("{}List", T::KIND),
                "plural": T::PLURAL,
                "singular": T::KIND.to_ascii_lowercase(),
            },
            "scope": "Namespaced",
            "versions": [version::<T>(T::VERSION, true)],
        },
    });
    Definition { file, object }
}

fn version<T: JsonSchema>(name: &str, storage: bool) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": root::<T>()}})
}

fn root<T: JsonSchema>() -> Value {
    // The contract of serialisation: whatever may be skipped is optional.
    let settings = SchemaSettings::openapi3()
        .for_serialize()
        .with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    structural::restrict(&mut schema);
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema
}
