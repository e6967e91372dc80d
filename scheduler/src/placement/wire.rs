//! Messages of the stream, as the engine knows them.

use std::sync::Arc;

use bytes::Bytes;
use outrider_placement_engine as engine;
use outrider_placement_engine::by_type::{Content, Order, Table};
use outrider_proto::scheduler::v1::{
    ActorHost, HashAlgorithm, Operation, PlacementHost, PlacementOrder, PlacementTable,
    PlacementTables,
};
use prost::Message as _;
use tonic::Status;

/// Of one report.
const MOST_TYPES: usize = 4096;
/// Of a name or an address, in bytes.
const LONGEST: usize = 512;

/// Bytes of a [`PlacementOrder`].
pub fn encode(order: &Order) -> Bytes {
    let mut message = PlacementOrder {
        namespace: order.namespace.to_string(),
        seq: order.seq,
        ..PlacementOrder::default()
    };
    let names = |types: &[Arc<str>]| types.iter().map(|it| it.to_string()).collect();
    match &order.content {
        Content::Lock(types) => {
            message.set_operation(Operation::Lock);
            message.actor_types = names(types);
        }
        Content::Unlock(types) => {
            message.set_operation(Operation::Unlock);
            message.actor_types = names(types);
        }
        Content::Update(tables) => {
            message.set_operation(Operation::Update);
            let versions = tables
                .iter()
                .map(|(name, it)| (name.to_string(), it.version));
            message.versions = versions.collect();
            let entries = tables
                .iter()
                .map(|(name, it)| (name.to_string(), table(it)));
            message.tables = Some(PlacementTables {
                entries: entries.collect(),
                hash_algorithm: HashAlgorithm::Rendezvous.into(),
            });
        }
    }
    message.encode_to_vec().into()
}

fn table(table: &Table) -> PlacementTable {
    let host = |(address, app_id): (&Arc<str>, &Arc<str>)| {
        let host = PlacementHost {
            address: address.to_string(),
            app_id: app_id.to_string(),
        };
        (address.to_string(), host)
    };
    PlacementTable {
        hosts: table.hosts.iter().map(host).collect(),
    }
}

/// What a sidecar reports of itself, if it fits.
pub fn host(report: ActorHost) -> Result<engine::Host, Status> {
    if report.actor_types.len() > MOST_TYPES {
        let text = format!("at most {MOST_TYPES} actor types");
        return Err(Status::invalid_argument(text));
    }
    let others = [&report.address, &report.app_id, &report.namespace];
    let is_long = |text: &String| text.len() > LONGEST;
    if others.into_iter().any(is_long) || report.actor_types.iter().any(is_long) {
        let text = format!("names and addresses have at most {LONGEST} bytes");
        return Err(Status::invalid_argument(text));
    }
    Ok(engine::Host::new(
        report.address,
        report.app_id,
        report.namespace,
        report.actor_types,
    ))
}

pub fn phase(operation: Operation) -> Option<engine::Phase> {
    match operation {
        Operation::Lock => Some(engine::Phase::Lock),
        Operation::Update => Some(engine::Phase::Update),
        Operation::Unlock => Some(engine::Phase::Unlock),
        Operation::Unknown => None,
    }
}
