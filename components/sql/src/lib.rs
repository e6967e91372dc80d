//! Components on SQL databases.

#[cfg(any(feature = "mysql", feature = "postgresql"))]
mod binding;
mod cleanup;
#[cfg(any(feature = "mysql", feature = "postgresql"))]
mod json;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgresql")]
pub mod postgresql;
mod sqlite;
mod statement;
mod store;
mod write;

outrider_components::components! {
    state: sqlite::state {
        names: &["sqlite", "sqlite3"],
        versions: Initial,
        status: Stable,
        tested: Conformance("SQLite: a file, memory"),
        file: "components/sql/src/sqlite/state/mod.rs",
    }

    nameresolution: sqlite::nameresolution {
        names: &["sqlite"],
        versions: Initial,
        status: Stable,
        tested: Unit("several sidecars on one database file"),
        file: "components/sql/src/sqlite/nameresolution.rs",
    }
}
