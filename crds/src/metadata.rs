//! The part of an object's metadata that a sidecar looks at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{decode, unset};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    #[serde(skip_serializing_if = "unset")]
    pub name: String,
    #[serde(skip_serializing_if = "unset")]
    pub namespace: String,
    #[serde(skip_serializing_if = "unset")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "unset")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "unset")]
    pub resource_version: String,
}

impl Metadata {
    /// A name is used as one segment of a path.
    pub(crate) fn check(&self, kind: &str) -> Result<(), decode::Error> {
        let why = match self.name.as_str() {
            "." => "may not be '.'",
            ".." => "may not be '..'",
            name if name.contains('/') => "may not contain '/'",
            name if name.contains('%') => "may not contain '%'",
            _ => return Ok(()),
        };
        Err(decode::Error::new(format!(
            "invalid name {:?} for {kind:?}: {why}",
            self.name
        )))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Metadata {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metadata".into()
    }

    /// The API server knows its fields.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}
