//! Messages of the stream, as the engine knows them.

use std::collections::HashMap;

use bytes::Bytes;
use outrider_placement_engine as engine;
use outrider_placement_engine::{Event, Order, Phase, StreamId};
use outrider_proto::placement::v1::{
    Host, HostOperation, PlacementOrder, PlacementTable, PlacementTables,
};
use prost::Message as _;

/// Bytes of a [`PlacementOrder`].
pub fn encode(order: &Order, replication_factor: i64) -> Bytes {
    let (operation, version, tables) = match order {
        Order::Lock { version } => ("lock", *version, None),
        Order::Unlock { version } => ("unlock", *version, None),
        Order::Update { version, tables } => {
            let tables = encode_tables(tables, *version, replication_factor);
            ("update", *version, Some(tables))
        }
    };
    let order = PlacementOrder {
        tables,
        operation: operation.to_owned(),
        version,
    };
    order.encode_to_vec().into()
}

fn encode_tables(
    tables: &engine::Tables,
    version: u64,
    replication_factor: i64,
) -> PlacementTables {
    let host = |(name, app_id): (&String, &String)| {
        let host = Host {
            name: name.clone(),
            id: app_id.clone(),
            ..Host::default()
        };
        (name.clone(), host)
    };
    let entries = tables.iter().map(|(actor_type, hosts)| {
        let table = PlacementTable {
            load_map: hosts.iter().map(host).collect(),
            ..PlacementTable::default()
        };
        (actor_type.clone(), table)
    });
    PlacementTables {
        entries: entries.collect::<HashMap<_, _>>(),
        // For sidecars that read it here.
        version: version.to_string(),
        replication_factor,
        ..PlacementTables::default()
    }
}

pub fn host(message: &Host) -> engine::Host {
    let mut host = engine::Host::new(
        message.name.clone(),
        message.id.clone(),
        message.namespace.clone(),
        message.entities.clone(),
    );
    host.api_level = message.api_level;
    host
}

/// What a message after the first one says.
pub fn event(stream: StreamId, message: &Host) -> Event {
    let phase = match message.operation() {
        HostOperation::Report => {
            return Event::Reported {
                stream,
                host: host(message),
            };
        }
        HostOperation::Lock => Some(Phase::Lock),
        HostOperation::Update => Some(Phase::Update),
        HostOperation::Unlock => Some(Phase::Unlock),
        // Sidecars before 1.17 do not say.
        HostOperation::Unknown => None,
    };
    Event::Acknowledged {
        stream,
        phase,
        version: message.version,
    }
}
