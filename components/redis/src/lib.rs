//! Components on Redis, Valkey and what speaks their protocol.

mod pubsub;
mod server;
mod settings;
mod slot;
mod state;

use outrider_components::{Duplicate, Registry, Row, Status, Tested, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    registry.state.register(
        Row {
            names: &["redis"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance(
                "redis-server: one node, a cluster, behind a sentinel, over TLS",
            ),
            fields: state::FIELDS,
            file: "components/redis/src/state.rs",
        },
        state::connect,
    )?;
    registry.pubsub.register(
        Row {
            names: &["redis"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance("redis-server: one node, a cluster"),
            fields: pubsub::FIELDS,
            file: "components/redis/src/pubsub.rs",
        },
        pubsub::connect,
    )
}
