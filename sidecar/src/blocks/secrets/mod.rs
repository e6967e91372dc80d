//! Secrets.
//! <https://docs.dapr.io/developing-applications/building-blocks/secrets/>

pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod scope;

use std::collections::HashMap;
use std::sync::Arc;

use outrider_components::secrets;

use crate::components::live;
use outrider_metrics::component::Operations;

/// Operations on the secret stores of this sidecar.
pub struct Api {
    pub stores: Arc<live::Map<Store>>,
    /// By store.
    pub scopes: HashMap<String, scope::Scope>,
}

/// A secret store that is in use.
pub struct Store {
    pub component: live::Component,
    pub store: Arc<dyn secrets::Store>,
    pub metrics: Operations,
}
