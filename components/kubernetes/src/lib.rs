//! Components on the Kubernetes API.

mod client;
mod secrets;

use outrider_components::{Duplicate, Registry, Row, Status, Tested, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    registry.secrets.register(
        Row {
            names: &["kubernetes"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Unit("an API server of the test"),
            fields: secrets::FIELDS,
            file: "components/kubernetes/src/secrets/mod.rs",
        },
        secrets::connect,
    )
}
