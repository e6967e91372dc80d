//! Components that are WebAssembly modules.

#![cfg(feature = "engine")]

pub mod middleware;

outrider_components::components! {
    middleware: middleware {
        names: &["http.wasm"],
        versions: Initial,
        status: Alpha,
        tested: Unit("guests in text form"),
        file: "components/wasm/src/middleware/mod.rs",
    }
}
