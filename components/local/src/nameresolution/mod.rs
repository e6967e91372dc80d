//! Name resolvers: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/>.

pub mod kubernetes;
pub mod mdns;
pub mod nameformat;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use outrider_components::Error;
use outrider_components::resolve::{Instance, Resolver};
use serde_json::Value;

/// Starts the resolver named `kind`. Call it inside a runtime: mDNS opens
/// sockets and keeps a task until the resolver is closed or dropped.
pub fn start(kind: &str, config: &Value, instance: Instance) -> Result<Arc<dyn Resolver>, Error> {
    match kind {
        "mdns" => mdns::start(instance),
        "kubernetes" => kubernetes::start(config),
        "nameformat" => nameformat::start(config),
        other => Err(Error::not_found(format!(
            "couldn't find name resolver {other}/v1"
        ))),
    }
}

/// A text setting, whatever the case of its key.
fn setting<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let (_, value) = config
        .as_object()?
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key))?;
    value.as_str().filter(|text| !text.is_empty())
}

/// A number that is good enough to spread load with.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_does_not_exist() {
        let error = start("dns", &Value::Null, Instance::default())
            .err()
            .expect("there is none");
        assert_eq!(error.to_string(), "couldn't find name resolver dns/v1");
    }
}
