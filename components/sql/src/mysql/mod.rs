//! MySQL and MariaDB.

mod binding;
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

    bindings: binding {
        names: &["mysql"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("MariaDB"),
        file: "components/sql/src/mysql/binding.rs",
    }
}
