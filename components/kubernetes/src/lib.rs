//! Components on the Kubernetes API.

mod client;
mod secrets;

use outrider_components::{Duplicate, Registry, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    const FAMILY: &str = "kubernetes";
    registry
        .secrets
        .register(FAMILY, &["kubernetes"], Versions::Initial, secrets::connect)
}
