//! Components on memcached.

mod client;
mod state;

outrider_components::components! {
    state: state {
        names: &["memcached"],
        versions: Initial,
        status: Stable,
        tested: Conformance("memcached: one server, two servers"),
        file: "components/memcached/src/state.rs",
    }
}
