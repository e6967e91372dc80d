//! MySQL and MariaDB.

mod connection;
mod state;

outrider_components::components! {
    state: state {
        names: &["mysql"],
        versions: Initial,
        status: Stable,
        tested: Conformance("MariaDB"),
        file: "components/sql/src/mysql/state/mod.rs",
    }
}
