//! Name resolvers by kind.

use std::sync::Arc;

use outrider_components::Error;
use outrider_components::resolve::{Instance, Resolver};
use serde_json::Value;

/// Starts the resolver of the given kind, such as `mdns`, with its own
/// settings; it announces `instance` if announcing is its way.
pub async fn resolver(
    kind: &str,
    settings: &Value,
    instance: Instance,
) -> Result<Arc<dyn Resolver>, Error> {
    #[cfg(feature = "sql")]
    if kind == "sqlite" {
        return outrider_components_sql::nameresolution::start(settings, instance).await;
    }
    #[cfg(feature = "local")]
    return outrider_components_local::nameresolution::start(kind, settings, instance);
    #[cfg(not(feature = "local"))]
    {
        let _ = (settings, instance);
        Err(Error::not_found(format!(
            "couldn't find name resolver {kind}/v1"
        )))
    }
}
