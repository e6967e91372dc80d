//! Components on the Kubernetes API.

mod client;
mod configuration;
mod crypto;
mod secrets;

outrider_components::components! {
    crypto: crypto {
        names: &["dapr.kubernetes.secrets"],
        versions: Initial,
        status: Alpha,
        tested: Unit("an API server of the test"),
        file: "components/kubernetes/src/crypto/mod.rs",
    }

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
