//! Components on Redis, Valkey and what speaks their protocol.

mod pubsub;
mod server;
mod settings;
mod slot;
mod state;

use outrider_components::{Duplicate, Registry, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    const FAMILY: &str = "redis";
    let first = Versions::Initial;
    registry
        .state
        .register(FAMILY, &["redis"], first, state::connect)?;
    registry
        .pubsub
        .register(FAMILY, &["redis"], first, pubsub::connect)?;
    Ok(())
}
