//! Named values: literal, from a secret, or from the environment.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decode::number_text;
use crate::unset;

/// The text of a literal: a string's own, anything else as JSON.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number),
        other => other.to_string(),
    }
}

/// A property of a component, a header or a variable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NameValue {
    /// Name of the property.
    pub name: String,
    /// Value of the property, in plain text.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// Takes the value from a secret; it wins over a literal value.
    #[serde(skip_serializing_if = "SecretKeyRef::is_unset")]
    pub secret_key_ref: SecretKeyRef,
    /// Takes the value from an environment variable of the sidecar.
    #[serde(skip_serializing_if = "unset")]
    pub env_ref: String,
}

impl NameValue {
    pub fn text(&self) -> String {
        text(&self.value)
    }
}

/// Where a secret is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SecretKeyRef {
    /// Name of the secret.
    pub name: String,
    /// Member of the secret; the secret's name if left out.
    #[serde(skip_serializing_if = "unset")]
    pub key: String,
}

impl SecretKeyRef {
    pub fn is_unset(&self) -> bool {
        self.name.is_empty()
    }

    /// The member to look up.
    pub fn key_or_name(&self) -> &str {
        if self.key.is_empty() {
            &self.name
        } else {
            &self.key
        }
    }
}

/// A certificate or key: literal PEM, or from a secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct TlsDocument {
    /// PEM text.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// Takes the document from a secret.
    #[serde(skip_serializing_if = "SecretKeyRef::is_unset")]
    pub secret_key_ref: SecretKeyRef,
}

/// The secret store of a resource's references.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Auth {
    /// Name of the secret store; empty or `kubernetes` for the secrets of the cluster.
    pub secret_store: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_become_text() {
        for (value, expected) in [
            (json!("a b"), "a b"),
            (json!(true), "true"),
            (json!(1), "1"),
            (json!(2.0), "2"),
            (json!({"a": [1]}), r#"{"a":[1]}"#),
            (Value::Null, ""),
        ] {
            assert_eq!(text(&value), expected);
        }
    }
}
