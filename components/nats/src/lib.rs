//! Components on NATS.

mod jetstream;

outrider_components::components! {
    pubsub: jetstream {
        names: &["jetstream"],
        versions: Initial,
        status: Beta,
        tested: Conformance("nats-server"),
        file: "components/nats/src/jetstream/mod.rs",
    }
}
