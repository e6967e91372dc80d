//! `Component`: a building block's implementation and its properties.

use serde::{Deserialize, Serialize};

use crate::property::{Auth, NameValue};
use crate::{Kind, Metadata, unset};

/// A building block's implementation and its properties.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Component {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
    #[serde(skip_serializing_if = "unset")]
    pub auth: Auth,
    /// App ids that may use the component; empty means every app of the namespace.
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
}

/// What the component is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "ComponentSpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Building block and implementation, such as `state.redis`.
    #[serde(rename = "type")]
    pub component_type: String,
    /// Version of the implementation, such as `v1`.
    pub version: String,
    /// Properties.
    pub metadata: Vec<NameValue>,
    /// The sidecar goes on without the component when it cannot be initialised.
    #[serde(skip_serializing_if = "unset")]
    pub ignore_errors: bool,
    /// Limit for the initialisation, such as `5s`.
    #[serde(skip_serializing_if = "unset")]
    pub init_timeout: String,
}

impl Component {
    /// `name (type/version)`, as logs and errors call a component.
    pub fn log_name(&self) -> String {
        let Spec {
            component_type,
            version,
            ..
        } = &self.spec;
        let slash = if version.is_empty() { "" } else { "/" };
        format!("{} ({component_type}{slash}{version})", self.metadata.name)
    }
}

impl Kind for Component {
    const KIND: &'static str = "Component";
    const PLURAL: &'static str = "components";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    fn read(text: &str) -> Vec<Result<Component, String>> {
        yaml::documents(text)
            .filter_map(|document| Component::from_document(&document.unwrap()))
            .map(|component| component.map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn a_manifest_is_read_and_other_kinds_are_skipped() {
        let read = read(
            "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: 123
spec:
  type: state.redis
  version: v1
  unknown: 1
  metadata:
  - name: redisHost
    value: localhost:6379
  - name: enableTLS
    value: true
  - name: redisPassword
    secretKeyRef: {name: redis, key: password}
  - name: user
    envRef: USER_NAME
auth:
  secretStore: file
scopes: [a, 1]
---
kind: Component
apiVersion: dapr.io/v2alpha1
---
kind: Deployment
apiVersion: apps/v1
",
        );
        let [Ok(component)] = read.as_slice() else {
            panic!("{read:?}")
        };
        assert_eq!(component.log_name(), "123 (state.redis/v1)");
        assert_eq!(component.auth.secret_store, "file");
        assert_eq!(component.scopes, ["a", "1"]);
        assert!(component.in_scope("1") && !component.in_scope("b"));
        let texts: Vec<_> = component
            .spec
            .metadata
            .iter()
            .map(NameValue::text)
            .collect();
        assert_eq!(texts, ["localhost:6379", "true", "", ""]);
        assert_eq!(
            component.spec.metadata[2].secret_key_ref.key_or_name(),
            "password"
        );
        assert_eq!(component.spec.metadata[3].env_ref, "USER_NAME");
    }

    #[test]
    fn an_error_names_the_field_of_a_wrong_manifest() {
        let head = "apiVersion: dapr.io/v1alpha1\nkind: Component\n";
        for (text, error) in [
            (
                "metadata: {name: a/b}",
                r#"invalid name "a/b" for "Component": may not contain '/'"#,
            ),
            (
                "spec: {metadata: {a: b}}",
                "spec.metadata: invalid type: map, expected a sequence",
            ),
            (
                "spec: {metadata: [{name: {}}]}",
                "spec.metadata[0].name: invalid type: map, expected a string",
            ),
        ] {
            assert_eq!(read(&format!("{head}{text}")), [Err(error.to_owned())]);
        }
    }

    #[test]
    fn nulls_and_empty_texts_of_the_operator_are_read() {
        let json = br#"{"metadata":{"name":"a","creationTimestamp":null},"spec":{"type":"state.redis","version":"v1",
            "ignoreErrors":false,"metadata":null,"initTimeout":""},"auth":{"secretStore":""}}"#;
        let component: Component = crate::decode::from_slice(json).unwrap();
        assert_eq!(component.metadata.name, "a");
        assert_eq!(component.spec.metadata, []);
    }
}
