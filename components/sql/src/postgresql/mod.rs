//! PostgreSQL, and what speaks its protocol.

mod binding;
mod configuration;
mod connection;
mod connection_string;
mod migrations;
mod state;

outrider_components::components! {
    state: state::v1 {
        names: &["postgresql", "postgres"],
        versions: Deprecated { version: "v1", default: true, preferred: "v2" },
        status: Stable,
        tested: Conformance("PostgreSQL"),
        file: "components/sql/src/postgresql/state/v1.rs",
    }

    state: state::v2 {
        names: &["postgresql", "postgres"],
        versions: Named { version: "v2", default: false },
        status: Stable,
        tested: Conformance("PostgreSQL"),
        file: "components/sql/src/postgresql/state/v2.rs",
    }

    configuration: configuration {
        names: &["postgresql", "postgres"],
        versions: Initial,
        status: Stable,
        tested: Conformance("PostgreSQL"),
        file: "components/sql/src/postgresql/configuration/mod.rs",
    }

    bindings: binding {
        names: &["postgresql", "postgres"],
        versions: Initial,
        status: Stable,
        tested: Conformance("PostgreSQL"),
        file: "components/sql/src/postgresql/binding/mod.rs",
    }
}
