//! The stream to the placement service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrider_proto::placement::v1 as wire;
use outrider_proto::placement::v1::placement_client::PlacementClient;
use outrider_security::Connector;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use super::client::{Opening, Protocol, UNSENT, follows};
use super::follower::{Follower, Order};
use super::{Options, Phase};
use crate::actors::Actors;
use crate::hosts::Tables;

/// What this end knows of the protocol.
const API_LEVEL: u32 = 20;
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// Sooner than the service, which gives a silent sidecar up after 5 s: the
/// actors are gone from here before others have them. A new leader counts on it.
const PING_AFTER: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a table.
const LARGEST: usize = 256 << 20;

pub struct Service {
    addresses: Vec<String>,
    connector: Connector,
    own: Arc<str>,
    app_id: String,
    namespace: String,
    timeout: Duration,
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
        Box::pin(async move {
            let mut failed = Status::unavailable("no address of it is known");
            for address in resolve(&addresses).await? {
                match open(address, connector.clone(), report.clone()).await {
                    Ok(opened) => return Ok(opened),
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
) -> Result<(mpsc::Sender<wire::Host>, Streaming<wire::PlacementOrder>), Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::invalid_argument(format!("address {address}: {error}")))?
        .connect_timeout(DIAL_LIMIT)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| {
            Status::unavailable(format!("{address}: {}", outrider_kit::error::chain(&error)))
        })?;
    let (reports, messages) = mpsc::channel(UNSENT);
    // There is room for one.
    let _ = reports.try_send(report);
    let mut client = PlacementClient::new(channel).max_decoding_message_size(LARGEST);
    let orders = client
        .report_dapr_status(ReceiverStream::new(messages))
        .await?;
    Ok((reports, orders.into_inner()))
}
