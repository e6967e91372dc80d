//! The stream to the scheduler that leads placement.

use std::sync::Arc;
use std::time::Duration;

use outrider_proto::scheduler::v1 as wire;
use outrider_proto::scheduler::v1::report_actor_types_request::Msg;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_security::Connector;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::client::{Opening, Protocol, UNSENT};
use super::dial::{self, Pings};
use super::rounds::{Follower, Order};
use super::{Options, Phase};
use crate::actors::Actors;

/// Sooner than the scheduler, which gives a silent sidecar up after 8 s: the
/// actors are gone from here before others have them. Schedulers close
/// connections with a ping within less than 5 s of the one before.
const PINGS: Pings = Pings {
    after: Duration::from_millis(5500),
    timeout: Duration::from_secs(2),
};
/// Until the first answer on a stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an order.
const LARGEST: usize = 256 << 20;

pub struct Leader {
    address: String,
    connector: Connector,
    own: Arc<str>,
    app_id: String,
    namespace: String,
    timeout: Duration,
}

impl Leader {
    pub fn new(address: &str, actors: &Actors, options: &Options) -> Self {
        Self {
            address: address.to_owned(),
            connector: options.scheduler.clone(),
            own: actors.own().clone(),
            app_id: options.app_id.clone(),
            namespace: options.namespace.clone(),
            timeout: options.timeout,
        }
    }
}

fn message(msg: Msg) -> wire::ReportActorTypesRequest {
    wire::ReportActorTypesRequest { msg: Some(msg) }
}

impl Protocol for Leader {
    type Message = wire::ReportActorTypesRequest;
    type Order = wire::PlacementOrder;
    type Follower = Follower;

    const NAME: &'static str = "scheduler that leads placement";
    const CONNECTED: &'static str = "Connected to the scheduler that leads placement";

    fn follower(&self) -> Follower {
        Follower::new(self.own.clone(), self.timeout)
    }

    fn report(&self, types: &[Arc<str>]) -> wire::ReportActorTypesRequest {
        message(Msg::Report(wire::ActorHost {
            address: self.own.to_string(),
            app_id: self.app_id.clone(),
            namespace: self.namespace.clone(),
            actor_types: types.iter().map(|kind| kind.to_string()).collect(),
        }))
    }

    fn acknowledge(&self, phase: Phase, seq: u64) -> wire::ReportActorTypesRequest {
        let operation = match phase {
            Phase::Lock => wire::Operation::Lock,
            Phase::Update => wire::Operation::Update,
            Phase::Unlock => wire::Operation::Unlock,
        };
        message(Msg::Ack(wire::PlacementOrderAck {
            operation: operation.into(),
            seq,
        }))
    }

    fn open(&self, report: wire::ReportActorTypesRequest) -> Opening<Self> {
        let connector = self.connector.clone();
        let address = self.address.clone();
        Box::pin(async move {
            let (channel, heard) = dial::connect(&address, connector, Some(PINGS)).await?;
            let (messages_tx, messages) = mpsc::channel(UNSENT);
            // There is room for one.
            let _ = messages_tx.try_send(report);
            let mut client = SchedulerClient::new(channel).max_decoding_message_size(LARGEST);
            let opening = client.report_actor_types(ReceiverStream::new(messages));
            let late = |_| Status::deadline_exceeded(format!("{address}: no answer"));
            let opened = tokio::time::timeout(ANSWER_LIMIT, opening).await;
            Ok((messages_tx, opened.map_err(late)??.into_inner(), heard))
        })
    }

    fn read(order: wire::PlacementOrder) -> (&'static str, Order) {
        let operation = order.operation();
        let seq = order.seq;
        match operation {
            wire::Operation::Lock => {
                let types = order.actor_types.into_iter().map(Arc::from).collect();
                ("lock", Order::Lock { seq, types })
            }
            wire::Operation::Unlock => ("unlock", Order::Unlock { seq }),
            wire::Operation::Update => {
                let tables = order.tables.unwrap_or_default();
                let is_known = tables.hash_algorithm() == wire::HashAlgorithm::Rendezvous;
                if !tables.entries.is_empty() && !is_known {
                    let text = format!(
                        "the scheduler has tables of hash algorithm {}, which this sidecar does not know: update it",
                        tables.hash_algorithm
                    );
                    return ("update", Order::Foreign(text));
                }
                let changes = tables.entries.into_iter().map(|(kind, table)| {
                    let hosts = table.hosts.into_iter();
                    let hosts = hosts.map(|(address, host)| (address, host.app_id));
                    (Arc::from(kind), hosts.collect())
                });
                let changes = changes.collect();
                ("update", Order::Update { seq, changes })
            }
            wire::Operation::Unknown => {
                let text = format!("unknown operation: {}", order.operation);
                ("other", Order::Foreign(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(algorithm: i32) -> wire::PlacementOrder {
        let host = wire::PlacementHost {
            address: "a:1".to_owned(),
            app_id: "app".to_owned(),
        };
        let table = wire::PlacementTable {
            hosts: [("a:1".to_owned(), host)].into(),
        };
        wire::PlacementOrder {
            operation: wire::Operation::Update.into(),
            seq: 7,
            tables: Some(wire::PlacementTables {
                entries: [("t".to_owned(), table)].into(),
                hash_algorithm: algorithm,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn tables_of_an_unknown_algorithm_are_refused() {
        for algorithm in [0, 2, -1] {
            let (_, order) = Leader::read(update(algorithm));
            assert!(matches!(order, Order::Foreign(_)), "{algorithm}: {order:?}");
        }
        let (_, order) = Leader::read(update(wire::HashAlgorithm::Rendezvous.into()));
        let Order::Update { seq: 7, changes } = order else {
            panic!("{order:?}");
        };
        assert_eq!(changes["t"]["a:1"], "app");
    }
}
