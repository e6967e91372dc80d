//! Components on MQTT 3.1.1, and a client of that protocol. It ties every
//! publication to its acknowledgement, acknowledges a message when it is told
//! to, and reads no more than there is room for.

mod bindings;
mod client;
mod filter;
mod packet;
mod pubsub;
mod settings;

outrider_components::components! {
    pubsub: pubsub {
        names: &["mqtt3", "mqtt"],
        versions: Initial,
        status: Stable,
        tested: Conformance("Mosquitto"),
        file: "components/mqtt/src/pubsub.rs",
    }

    bindings: bindings {
        names: &["mqtt3", "mqtt"],
        versions: Initial,
        status: Beta,
        tested: Conformance("Mosquitto"),
        file: "components/mqtt/src/bindings.rs",
    }
}
