//! Components on etcd, and the part of its API that they use.

mod api;
mod client;
mod like;
mod state;
mod value;

outrider_components::components! {
    state: state::v1 {
        names: &["etcd"],
        versions: Deprecated { version: "v1", default: true, preferred: "v2" },
        status: Alpha,
        tested: Conformance("etcd"),
        file: "components/etcd/src/state/v1.rs",
    }

    state: state::v2 {
        names: &["etcd"],
        versions: Named { version: "v2", default: false },
        status: Alpha,
        tested: Conformance("etcd"),
        file: "components/etcd/src/state/v2.rs",
    }
}
