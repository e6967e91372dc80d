//! The stream to the placement service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outrider_proto::placement::v1 as wire;
use outrider_proto::placement::v1::placement_client::PlacementClient;
use outrider_security::Connector;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::client::{Opening, Protocol, Stream, UNSENT, follows};
use super::dial;
use super::follower::{Follower, Order};
use super::{Options, Phase};
use crate::actors::Actors;
use crate::hosts::Tables;

/// What this end knows of the protocol.
const API_LEVEL: u32 = 20;
/// Ours says in this how often it asks whether anybody is there, in milliseconds.
const PINGS: &str = "outrider-ping-milliseconds";
const LONGEST_PINGS: u64 = 60_000;
/// Bytes of a table.
const LARGEST: usize = 256 << 20;

pub struct Service {
    addresses: Vec<String>,
    connector: Connector,
    own: Arc<str>,
    app_id: String,
    namespace: String,
    timeout: Duration,
    /// The address that is tried first: the one after that of the last stream,
    /// which may be frozen.
    first: Arc<AtomicUsize>,
}

impl Service {
    pub fn new(actors: &Actors, options: &Options) -> Self {
        Self {
            addresses: options.addresses.clone(),
            connector: options.service.clone(),
            own: actors.own().clone(),
            app_id: options.app_id.clone(),
            namespace: options.namespace.clone(),
            timeout: options.timeout,
            first: Arc::default(),
        }
    }

    fn message(&self, operation: wire::HostOperation) -> wire::Host {
        wire::Host {
            name: self.own.to_string(),
            id: self.app_id.clone(),
            namespace: self.namespace.clone(),
            operation: operation.into(),
            ..Default::default()
        }
    }
}

impl Protocol for Service {
    type Message = wire::Host;
    type Order = wire::PlacementOrder;
    type Follower = Follower;

    const NAME: &'static str = "placement service";
    const CONNECTED: &'static str = "Connected to placement service";

    fn follower(&self) -> Follower {
        Follower::new(self.own.clone(), self.timeout)
    }

    fn report(&self, types: &[Arc<str>]) -> wire::Host {
        wire::Host {
            entities: types.iter().map(|kind| kind.to_string()).collect(),
            api_level: API_LEVEL,
            ..self.message(wire::HostOperation::Report)
        }
    }

    fn acknowledge(&self, phase: Phase, version: u64) -> wire::Host {
        let operation = match phase {
            Phase::Lock => wire::HostOperation::Lock,
            Phase::Update => wire::HostOperation::Update,
            Phase::Unlock => wire::HostOperation::Unlock,
        };
        wire::Host {
            version: Some(version),
            ..self.message(operation)
        }
    }

    /// A stream to the first address that has one for us.
    fn open(&self, report: wire::Host) -> Opening<Self> {
        let connector = self.connector.clone();
        let addresses = self.addresses.clone();
        let first = self.first.clone();
        Box::pin(async move {
            let mut failed = Status::unavailable("no address of it is known");
            let addresses = resolve(&addresses).await?;
            let begin = first.load(Ordering::Relaxed);
            for number in begin..begin + addresses.len() {
                let Some(address) = addresses.get(number % addresses.len()) else {
                    continue;
                };
                match open(*address, connector.clone(), report.clone()).await {
                    Ok(opened) => {
                        first.store((number + 1) % addresses.len(), Ordering::Relaxed);
                        return Ok(opened);
                    }
                    // That a replica does not lead explains less than others do.
                    Err(status) if follows(&status) && !follows(&failed) => {
                        if failed.code() == Code::Unavailable {
                            failed = status;
                        }
                    }
                    Err(status) => failed = status,
                }
            }
            Err(failed)
        })
    }

    fn read(order: wire::PlacementOrder) -> (&'static str, Order) {
        let tables = order.tables.unwrap_or_default();
        let version = match order.version {
            // Of older services.
            0 => tables.version.parse().unwrap_or(0),
            version => version,
        };
        match &*order.operation {
            "lock" => ("lock", Order::Lock { version }),
            "unlock" => ("unlock", Order::Unlock { version }),
            "update" => {
                let points = u32::try_from(tables.replication_factor).unwrap_or(0);
                let types = tables.entries.into_iter().map(|(kind, table)| {
                    let hosts = table.load_map.into_iter();
                    let hosts = hosts.map(|(name, host)| (name, host.id));
                    (Arc::from(kind), hosts.collect())
                });
                let tables = Arc::new(Tables::rings(types.collect(), points));
                ("update", Order::Update { version, tables })
            }
            _ => {
                let operation = order.operation;
                ("other", Order::Unknown { operation })
            }
        }
    }
}

/// All addresses, in their order.
async fn resolve(given: &[String]) -> Result<Vec<SocketAddr>, Status> {
    let mut addresses = Vec::new();
    let mut failed = None;
    for address in given {
        match tokio::net::lookup_host(address).await {
            Ok(found) => addresses.extend(found),
            Err(error) => failed = Some(Status::unavailable(format!("{address}: {error}"))),
        }
    }
    match failed {
        Some(failed) if addresses.is_empty() => Err(failed),
        _ => Ok(addresses),
    }
}

async fn open(
    address: SocketAddr,
    connector: Connector,
    report: wire::Host,
) -> Result<Stream<Service>, Status> {
    // By default the service asks each 2 s whether anybody is there, and gives a silent sidecar
    // up after 5 s; the sidecar listens for that, and gives its actors up before
    // others have them. It does not ask itself: Dapr's service closes the streams of
    // those that ask often.
    let (channel, heard) = dial::connect(address, connector, None).await?;
    let (reports, messages) = mpsc::channel(UNSENT);
    // There is room for one.
    let _ = reports.try_send(report);
    let mut client = PlacementClient::new(channel).max_decoding_message_size(LARGEST);
    // Placement of Dapr answers with its first order, which may take a round.
    let orders = client
        .report_dapr_status(ReceiverStream::new(messages))
        .await?;
    let every = orders.metadata().get(PINGS);
    let every = every.and_then(|every| every.to_str().ok()?.parse().ok());
    if let Some(every) = every.filter(|every| *every <= LONGEST_PINGS) {
        heard.expect(Duration::from_millis(every));
    }
    Ok((reports, orders.into_inner(), heard))
}
