//! Components that need nothing but this process and its files.

pub mod in_memory;
pub mod nameresolution;
pub mod secrets;

use outrider_components::{Duplicate, Registry, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    const FAMILY: &str = "local";
    let first = Versions::Initial;
    registry
        .state
        .register(FAMILY, &["in-memory"], first, in_memory::state::connect)?;
    registry
        .pubsub
        .register(FAMILY, &["in-memory"], first, in_memory::pubsub::connect)?;
    registry
        .secrets
        .register(FAMILY, &["local.env"], first, secrets::env::connect)?;
    registry
        .secrets
        .register(FAMILY, &["local.file"], first, secrets::file::connect)?;
    Ok(())
}
