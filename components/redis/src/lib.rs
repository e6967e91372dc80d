//! Components on Redis, Valkey and what speaks their protocol.

mod bindings;
mod configuration;
mod lock;
mod pubsub;
mod server;
mod settings;
mod slot;
mod state;

outrider_components::components! {
    state: state {
        names: &["redis"],
        versions: Initial,
        status: Stable,
        tested: Conformance(
            "redis-server: one node, a cluster, behind a sentinel, over TLS",
        ),
        file: "components/redis/src/state.rs",
    }

    bindings: bindings {
        names: &["redis"],
        versions: Initial,
        status: Stable,
        tested: Conformance("redis-server: one node, a cluster"),
        file: "components/redis/src/bindings.rs",
    }

    pubsub: pubsub {
        names: &["redis"],
        versions: Initial,
        status: Stable,
        tested: Conformance("redis-server: one node, a cluster"),
        file: "components/redis/src/pubsub.rs",
    }

    configuration: configuration {
        names: &["redis"],
        versions: Initial,
        status: Stable,
        tested: Conformance("redis-server: one node, a cluster without subscriptions, behind a sentinel"),
        file: "components/redis/src/configuration/mod.rs",
    }

    lock: lock {
        names: &["redis"],
        versions: Initial,
        status: Stable,
        tested: Conformance("redis-server: one node, behind a sentinel"),
        file: "components/redis/src/lock.rs",
    }
}
