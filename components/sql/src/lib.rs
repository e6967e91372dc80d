//! Components on SQL databases.

pub mod nameresolution;
mod sqlite;

use outrider_components::{Duplicate, Registry, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    const FAMILY: &str = "sql";
    let names = ["sqlite", "sqlite3"];
    registry
        .state
        .register(FAMILY, &names, Versions::Initial, sqlite::state::connect)
}
