//! Components that need nothing but this process and its files.

pub mod bindings;
pub mod conversation;
pub mod crypto;
mod folder;
pub mod in_memory;
pub mod middleware;
pub mod nameresolution;
pub mod secrets;

outrider_components::components! {
    state: in_memory::state {
        names: &["in-memory"],
        versions: Initial,
        status: Stable,
        tested: Conformance("no server"),
        file: "components/local/src/in_memory/state.rs",
    }

    pubsub: in_memory::pubsub {
        names: &["in-memory"],
        versions: Initial,
        status: Stable,
        tested: Conformance("no server"),
        file: "components/local/src/in_memory/pubsub.rs",
    }

    bindings: bindings::cron {
        names: &["cron"],
        versions: Initial,
        status: Stable,
        tested: Conformance("the clock"),
        file: "components/local/src/bindings/cron.rs",
    }

    bindings: bindings::localstorage {
        names: &["localstorage"],
        versions: Initial,
        status: Stable,
        tested: Conformance("a folder"),
        file: "components/local/src/bindings/localstorage/mod.rs",
    }

    conversation: conversation::echo {
        names: &["echo"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("no server"),
        file: "components/local/src/conversation/echo.rs",
    }

    crypto: crypto::localstorage {
        names: &["dapr.localstorage"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("a folder of keys"),
        file: "components/local/src/crypto/localstorage.rs",
    }

    secrets: secrets::env {
        names: &["local.env"],
        versions: Initial,
        status: Stable,
        tested: Conformance("variables of the process"),
        file: "components/local/src/secrets/env.rs",
    }

    secrets: secrets::file {
        names: &["local.file"],
        versions: Initial,
        status: Stable,
        tested: Conformance("a file"),
        file: "components/local/src/secrets/file.rs",
    }

    middleware: middleware::ratelimit {
        names: &["http.ratelimit"],
        versions: Initial,
        status: Stable,
        tested: Unit("no server"),
        file: "components/local/src/middleware/ratelimit.rs",
    }

    middleware: middleware::routeralias {
        names: &["http.routeralias"],
        versions: Initial,
        status: Alpha,
        tested: Unit("no server"),
        file: "components/local/src/middleware/routeralias.rs",
    }

    middleware: middleware::routerchecker {
        names: &["http.routerchecker"],
        versions: Initial,
        status: Alpha,
        tested: Unit("no server"),
        file: "components/local/src/middleware/routerchecker.rs",
    }

    middleware: middleware::sentinel {
        names: &["http.sentinel"],
        versions: Initial,
        status: Alpha,
        tested: Unit("no server"),
        file: "components/local/src/middleware/sentinel/mod.rs",
    }

    middleware: middleware::uppercase {
        names: &["http.uppercase"],
        versions: Initial,
        status: Stable,
        tested: Unit("no server"),
        file: "components/local/src/middleware/uppercase.rs",
    }

    nameresolution: nameresolution::mdns {
        names: &["mdns"],
        versions: Initial,
        status: Stable,
        tested: Unit("several sidecars on one machine"),
        file: "components/local/src/nameresolution/mdns/mod.rs",
    }

    nameresolution: nameresolution::kubernetes {
        names: &["kubernetes"],
        versions: Initial,
        status: Stable,
        tested: Unit("DNS of the machine"),
        file: "components/local/src/nameresolution/kubernetes.rs",
    }

    nameresolution: nameresolution::nameformat {
        names: &["nameformat"],
        versions: Initial,
        status: Alpha,
        tested: Unit("no server"),
        file: "components/local/src/nameresolution/nameformat.rs",
    }
}
