//! Name resolvers by kind.

use std::sync::Arc;

use outrider_components::Error;
use outrider_components::resolve::{Instance, Resolver};
use serde_json::Value;

/// Starts the resolver of the given kind, such as `mdns`, with its own
/// settings; it announces `instance` if announcing is its way.
pub async fn resolver(kind: &str, settings: &Value, instance: Instance) -> Result<Arc<dyn Resolver>, Error> {
    let _ = (settings, instance);
    Err(Error::unsupported(format!("couldn't find name resolver {kind}/v1")))
}
