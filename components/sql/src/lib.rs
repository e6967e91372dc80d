//! Components on SQL databases.

mod sqlite;

use outrider_components::{Duplicate, Registry, Row, Status, Tested, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    registry.state.register(
        Row {
            names: &["sqlite", "sqlite3"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance("SQLite: a file, memory"),
            fields: sqlite::state::FIELDS,
            file: "components/sql/src/sqlite/state/mod.rs",
        },
        sqlite::state::connect,
    )?;
    registry.nameresolution.register(
        Row {
            names: &["sqlite"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Unit("several sidecars on one database file"),
            fields: sqlite::nameresolution::FIELDS,
            file: "components/sql/src/sqlite/nameresolution.rs",
        },
        sqlite::nameresolution::connect,
    )
}
