//! Components on the Kubernetes API.

mod client;
mod secrets;

outrider_components::components! {
    secrets: secrets {
        names: &["kubernetes"],
        versions: Initial,
        status: Stable,
        tested: Unit("an API server of the test"),
        file: "components/kubernetes/src/secrets/mod.rs",
    }
}
