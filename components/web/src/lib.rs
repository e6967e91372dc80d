//! Components that need nothing but an HTTP client.

pub mod bindings;
pub mod nameresolution;

outrider_components::components! {
    bindings: bindings::http {
        names: &["http"],
        versions: Initial,
        status: Stable,
        tested: Conformance("an HTTP server, with and without TLS"),
        file: "components/web/src/bindings/http/mod.rs",
    }

    nameresolution: nameresolution::consul {
        names: &["hashicorp.consul", "consul"],
        versions: Initial,
        status: Alpha,
        tested: Unit("an agent of the test"),
        file: "components/web/src/nameresolution/consul/mod.rs",
    }
}
