//! Components on RabbitMQ.

mod bindings;
mod connection;
mod pubsub;
mod session;

outrider_components::components! {
    pubsub: pubsub {
        names: &["rabbitmq"],
        versions: Initial,
        status: Stable,
        tested: Conformance("RabbitMQ"),
        file: "components/rabbitmq/src/pubsub/mod.rs",
    }

    bindings: bindings {
        names: &["rabbitmq"],
        versions: Initial,
        status: Stable,
        tested: Conformance("RabbitMQ"),
        file: "components/rabbitmq/src/bindings.rs",
    }
}
