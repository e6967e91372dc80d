//! The resources of `dapr.io`: one file per kind, and the annotations of pods.
//!
//! The types are what a sidecar reads from disk or from the operator, and, with feature `schema`, what the
//! definitions in `charts/dapr/crds` are generated from. A field without `skip_serializing_if` is required by
//! the schema; decoding is lenient and takes the zero value for whatever is missing.

pub mod annotations;
pub mod app_id;
pub mod component;
pub mod configuration;
pub mod decode;
pub mod http_endpoint;
pub mod mcp_server;
pub mod metadata;
pub mod property;
pub mod resiliency;
#[cfg(feature = "schema")]
pub mod schema;
pub mod subscription;
pub mod workflow_access_policy;
pub mod yaml;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use component::Component;
pub use configuration::Configuration;
pub use http_endpoint::HttpEndpoint;
pub use mcp_server::McpServer;
pub use metadata::Metadata;
pub use resiliency::Resiliency;
pub use subscription::Subscription;
pub use workflow_access_policy::WorkflowAccessPolicy;

/// The API group of every kind.
pub const GROUP: &str = "dapr.io";

/// A kind of resource, as it is found in files and in answers of the operator.
pub trait Kind: DeserializeOwned {
    const KIND: &'static str;
    /// In the API's paths.
    const PLURAL: &'static str;
    /// The version it is stored in.
    const VERSION: &'static str = "v1alpha1";

    fn metadata(&self) -> &Metadata;

    /// App ids that may see the resource; empty means all.
    fn scopes(&self) -> &[String];

    /// Whether the document is of this kind and version.
    fn claims(document: &Value) -> bool {
        is(document, Self::VERSION, Self::KIND)
    }

    /// Decodes a document. `None` if it is of another kind.
    fn from_document(document: &Value) -> Option<Result<Self, decode::Error>> {
        Self::claims(document).then(|| {
            let object: Self = decode::from_value(document)?;
            object.metadata().check(Self::KIND)?;
            Ok(object)
        })
    }

    fn in_scope(&self, app_id: &str) -> bool {
        self.scopes().is_empty() || self.scopes().iter().any(|scope| scope == app_id)
    }
}

fn is(document: &Value, version: &str, kind: &str) -> bool {
    // The case of keys does not matter here, as in the fields of resources.
    let text = |key: &str| {
        document
            .as_object()
            .and_then(|all| all.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)))
            .and_then(|(_, value)| value.as_str())
            .unwrap_or_default()
    };
    text("kind") == kind && text("apiVersion").strip_prefix("dapr.io/") == Some(version)
}

/// For `skip_serializing_if`: the field may be left out.
fn unset<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}
