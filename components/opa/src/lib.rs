//! Components that decide by policies in Rego.

#![cfg(feature = "engine")]

pub mod middleware;

outrider_components::components! {
    middleware: middleware {
        names: &["http.opa"],
        versions: Initial,
        status: Alpha,
        tested: Unit("policies of both versions of Rego"),
        file: "components/opa/src/middleware.rs",
    }
}
