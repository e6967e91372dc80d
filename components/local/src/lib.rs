//! Components that need nothing but this process and its files.

pub mod in_memory;
pub mod nameresolution;
pub mod secrets;

use outrider_components::{Duplicate, Registry, Row, Status, Tested, Versions};

/// Registers every component of this crate.
pub fn register(registry: &mut Registry) -> Result<(), Duplicate> {
    registry.state.register(
        Row {
            names: &["in-memory"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance("nothing but itself"),
            fields: &[],
            file: "components/local/src/in_memory/state.rs",
        },
        in_memory::state::connect,
    )?;
    registry.pubsub.register(
        Row {
            names: &["in-memory"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance("nothing but itself"),
            fields: &[],
            file: "components/local/src/in_memory/pubsub.rs",
        },
        in_memory::pubsub::connect,
    )?;
    registry.secrets.register(
        Row {
            names: &["local.env"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance("variables of the process"),
            fields: secrets::env::FIELDS,
            file: "components/local/src/secrets/env.rs",
        },
        secrets::env::connect,
    )?;
    registry.secrets.register(
        Row {
            names: &["local.file"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Conformance("a file"),
            fields: secrets::file::FIELDS,
            file: "components/local/src/secrets/file.rs",
        },
        secrets::file::connect,
    )?;
    registry.nameresolution.register(
        Row {
            names: &["mdns"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Unit("several sidecars on one machine"),
            fields: &[],
            file: "components/local/src/nameresolution/mdns/mod.rs",
        },
        nameresolution::mdns::connect,
    )?;
    registry.nameresolution.register(
        Row {
            names: &["kubernetes"],
            versions: Versions::Initial,
            status: Status::Stable,
            tested: Tested::Unit("the resolver of the machine"),
            fields: nameresolution::kubernetes::FIELDS,
            file: "components/local/src/nameresolution/kubernetes.rs",
        },
        nameresolution::kubernetes::connect,
    )?;
    registry.nameresolution.register(
        Row {
            names: &["nameformat"],
            versions: Versions::Initial,
            status: Status::Alpha,
            tested: Tested::Unit("nothing but itself"),
            fields: nameresolution::nameformat::FIELDS,
            file: "components/local/src/nameresolution/nameformat.rs",
        },
        nameresolution::nameformat::connect,
    )
}
