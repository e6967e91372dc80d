//! What a component is: the trait of each building block, the properties a
//! component is configured with, its errors, and the registry that finds a
//! constructor by type and version. It depends on neither HTTP nor gRPC, but for
//! HTTP middleware.

#![warn(missing_docs)]

pub mod bindings;
pub mod configuration;
pub mod conversation;
pub mod crypto;
mod error;
mod fields;
pub mod lock;
mod metadata;
pub mod middleware;
pub mod pubsub;
mod registry;
pub mod resolve;
pub mod secrets;
pub mod state;
mod subscription;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use error::{ApiError, Error, Kind};
pub use fields::{Field, FieldValue, Milliseconds, Secret, Truthy};
pub use metadata::Metadata;
pub use registry::{
    Constructor, Duplicate, Found, Missing, Registry, Row, Status, Table, Tested, Versions,
};

/// Free-form key and value pairs that travel with a request or an answer.
pub type Pairs = HashMap<String, String>;

/// What every constructor may know of the process it runs in. The sidecar
/// fills it once from its flags and environment; components read neither.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The application's id (`--app-id`).
    pub app_id: String,
    /// The namespace of the sidecar (`NAMESPACE`); may be empty outside
    /// Kubernetes.
    pub namespace: String,
    /// The address that other sidecars reach this one at.
    pub host: String,
    /// The port of the internal gRPC server, for other sidecars.
    pub internal_port: u16,
    /// The port of the HTTP API.
    pub http_port: u16,
    /// The port of the application, if there is one.
    pub app_port: Option<u16>,
    /// The environment of the process.
    pub environment: Arc<BTreeMap<String, String>>,
}
