//! Components that need nothing but an HTTP client.

pub mod bindings;

outrider_components::components! {
    bindings: bindings::http {
        names: &["http"],
        versions: Initial,
        status: Stable,
        tested: Conformance("an HTTP server, with and without TLS"),
        file: "components/web/src/bindings/http/mod.rs",
    }
}
