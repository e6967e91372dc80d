//! Components on the Kubernetes API.

mod client;
mod configuration;
mod secrets;

outrider_components::components! {
    secrets: secrets {
        names: &["kubernetes"],
        versions: Initial,
        status: Stable,
        tested: Unit("an API server of the test"),
        file: "components/kubernetes/src/secrets/mod.rs",
    }

    configuration: configuration {
        names: &["kubernetes"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an API server of the test"),
        file: "components/kubernetes/src/configuration/mod.rs",
    }
}
