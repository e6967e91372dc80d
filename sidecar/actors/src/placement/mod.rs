//! The stream to the placement service: says which types are hosted here, and
//! takes over its tables.

pub mod follower;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use outrider_host::Target;
use outrider_proto::placement::v1 as wire;
use outrider_proto::placement::v1::placement_client::PlacementClient;
use outrider_security::Connector;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::actors::Actors;
use crate::hosting::Types;
use crate::ring::Tables;
use crate::routing::Known;
use crate::table::Which;
use follower::{Effect, Event, Follower, Order, Phase};

const SCOPE: &str = "dapr.runtime.actors.placement";
/// What this end knows of the protocol.
const API_LEVEL: u32 = 20;
const DIAL_LIMIT: Duration = Duration::from_secs(3);
const PING_AFTER: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// After every address was tried: the pause, and what chance adds. A new leader
/// waits 1 s for its hosts.
const PAUSE: Duration = Duration::from_millis(250);
const JITTER_MILLIS: u32 = 500;
/// After streams that have led to no table the pause is doubled up to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Bytes of a table.
const LARGEST: usize = 256 << 20;
/// Messages that the service has not taken yet, at most.
const UNSENT: usize = 256;

pub struct Options {
    /// `host:port`, tried in their order; of a name all its addresses are.
    pub addresses: Vec<String>,
    pub connector: Connector,
    pub app_id: String,
    pub namespace: String,
    /// Longest time of a round.
    pub timeout: Duration,
    /// Changes with what [`crate::Options::has_store`] says.
    pub has_store: watch::Receiver<bool>,
    /// Ready with the first table.
    pub ready: Target,
}

type Opening = Pin<Box<dyn Future<Output = Result<Open, Status>> + Send>>;

struct Open {
    reports: mpsc::Sender<wire::Host>,
    orders: Streaming<wire::PlacementOrder>,
    /// What was last reported to it.
    reported: Vec<Arc<str>>,
}

enum Link {
    Opening(Opening),
    Open(Box<Open>),
}

/// Follows the placement service for as long as actors are called.
pub struct Client {
    options: Options,
    actors: Actors,
    follower: Follower,
    hosted: watch::Receiver<Arc<Types>>,
    halted_tx: mpsc::UnboundedSender<u64>,
    /// Each new cause is logged once.
    logged: String,
    /// Before the next stream.
    pause: Duration,
}

impl Client {
    /// Runs until `stopping`.
    pub async fn run(actors: Actors, options: Options, stopping: CancellationToken) {
        let (halted_tx, mut halted) = mpsc::unbounded_channel();
        let mut client = Self {
            follower: Follower::new(actors.own().clone(), options.timeout),
            hosted: actors.hosting().hosted(),
            actors,
            options,
            halted_tx,
            logged: String::new(),
            pause: Duration::ZERO,
        };
        let mut link = client.open(Duration::ZERO);
        loop {
            let deadline = client.follower.next_deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                () = stopping.cancelled() => return,
                () = due => client.handle(Event::Woken, link),
                Some(number) = halted.recv() => client.handle(Event::Halted { number }, link),
                _ = client.hosted.changed() => client.report(link),
                Ok(()) = client.options.has_store.changed() => client.report(link),
                step = step(&mut link) => client.step(step, link),
            };
            link = next;
        }
    }

    fn message(&self, operation: wire::HostOperation) -> wire::Host {
        wire::Host {
            name: self.actors.own().to_string(),
            id: self.options.app_id.clone(),
            namespace: self.options.namespace.clone(),
            operation: operation.into(),
            ..Default::default()
        }
    }

    fn reporting(&self, types: &[Arc<str>]) -> wire::Host {
        wire::Host {
            entities: types.iter().map(|kind| kind.to_string()).collect(),
            api_level: API_LEVEL,
            ..self.message(wire::HostOperation::Report)
        }
    }

    /// Says what is hosted now, if it is something else.
    fn report(&mut self, link: Link) -> Link {
        self.hosted.mark_unchanged();
        let types = self.actors.advertise();
        let Link::Open(mut open) = link else {
            return link;
        };
        if open.reported == types {
            return Link::Open(open);
        }
        let report = self.reporting(&types);
        open.reported = types;
        self.send(&open, "report", report);
        Link::Open(open)
    }

    fn send(&self, open: &Open, operation: &str, message: wire::Host) {
        let metrics = &self.actors.inner().metrics;
        match open.reports.try_send(message) {
            Ok(()) => metrics.reported(operation),
            // The stream has ended, or does not move: it is seen where it is read.
            Err(_) => metrics.not_reported(operation, "send"),
        }
    }

    fn step(&mut self, step: Step, link: Link) -> Link {
        match step {
            Step::Opened(Ok(open)) => {
                tracing::info!(target: SCOPE, "Connected to placement service");
                self.logged.clear();
                self.report(Link::Open(Box::new(open)))
            }
            Step::Opened(Err(status)) => {
                self.log(&status);
                self.open(PAUSE + Duration::from_millis(jitter()))
            }
            Step::Received(Ok(Some(order))) => {
                self.logged.clear();
                let operation = match &*order.operation {
                    known @ ("lock" | "update" | "unlock") => known,
                    _ => "other",
                };
                self.actors.inner().metrics.ordered(operation);
                self.handle(Event::Ordered(read(order)), link)
            }
            Step::Received(ended) => {
                let status = ended
                    .err()
                    .unwrap_or_else(|| Status::unavailable("it has ended"));
                self.log(&status);
                self.handle(Event::Lost, link);
                self.again()
            }
        }
    }

    fn log(&mut self, status: &Status) {
        // A replica that does not lead: the next one may.
        if follows(status) || status.message() == self.logged {
            tracing::debug!(target: SCOPE, "the placement service cannot be followed, trying again: {status}");
            return;
        }
        tracing::warn!(target: SCOPE, "the stream to the placement service has ended, trying again: {}", outrider_net::grpc::text(status));
        status.message().clone_into(&mut self.logged);
    }

    fn handle(&mut self, event: Event, mut link: Link) -> Link {
        let mut effects = Vec::new();
        self.follower
            .handle(std::time::Instant::now(), event, &mut effects);
        let mut fence = None;
        for effect in effects {
            match effect {
                Effect::Acknowledge(phase, version) => {
                    let (operation, name) = match phase {
                        Phase::Lock => (wire::HostOperation::Lock, "lock"),
                        Phase::Update => (wire::HostOperation::Update, "update"),
                        Phase::Unlock => (wire::HostOperation::Unlock, "unlock"),
                    };
                    let mut message = self.message(operation);
                    message.version = Some(version);
                    if let Link::Open(open) = &link {
                        self.send(open, name, message);
                    }
                }
                Effect::Route(known) => {
                    let next = match &known {
                        Known::Moving { to, .. } => Some(to.clone()),
                        _ => None,
                    };
                    fence = Some(self.actors.set_routing(known));
                    if let Some(tables) = next {
                        let address = self.actors.own().clone();
                        self.actors.lose(&Which::NotOf { tables, address });
                    }
                }
                Effect::Halt { number, which } => {
                    let gone = self.actors.halt(fence.unwrap_or(0), which);
                    let halted_tx = self.halted_tx.clone();
                    self.actors.spawn("actors that go", async move {
                        gone.await;
                        let _ = halted_tx.send(number);
                    });
                }
                Effect::Settled => {
                    self.pause = Duration::ZERO;
                    self.options.ready.ready();
                }
                Effect::Close(cause) => {
                    tracing::warn!(target: SCOPE, "{cause}");
                    link = self.again();
                }
            }
        }
        link
    }

    /// A new stream: soon after one that was of use, later and later after others.
    fn again(&mut self) -> Link {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        self.open(pause + Duration::from_millis(jitter() / 10))
    }

    /// A stream to the first address that has one for us.
    fn open(&mut self, pause: Duration) -> Link {
        let types = self.actors.advertise();
        let report = self.reporting(&types);
        let connector = self.options.connector.clone();
        let addresses = self.options.addresses.clone();
        Link::Opening(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let mut failed = Status::unavailable("no address of it is known");
            for address in resolve(&addresses).await? {
                match open(address, connector.clone(), report.clone()).await {
                    Ok((reports, orders)) => {
                        return Ok(Open {
                            reports,
                            orders,
                            reported: types,
                        });
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
        }))
    }
}

/// What a link has to say next.
enum Step {
    Opened(Result<Open, Status>),
    Received(Result<Option<wire::PlacementOrder>, Status>),
}

/// May be dropped and called again.
async fn step(link: &mut Link) -> Step {
    match link {
        Link::Opening(opening) => Step::Opened(opening.await),
        Link::Open(open) => Step::Received(open.orders.message().await),
    }
}

/// Whether a replica says that it does not lead.
fn follows(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("is not a leader")
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

fn read(order: wire::PlacementOrder) -> Order {
    let tables = order.tables.unwrap_or_default();
    let version = match order.version {
        // Of older services.
        0 => tables.version.parse().unwrap_or(0),
        version => version,
    };
    match &*order.operation {
        "lock" => Order::Lock { version },
        "unlock" => Order::Unlock { version },
        "update" => {
            let points = u32::try_from(tables.replication_factor).unwrap_or(0);
            let types = tables.entries.into_iter().map(|(kind, table)| {
                let hosts = table.load_map.into_iter();
                (
                    Arc::from(kind),
                    hosts.map(|(name, host)| (name, host.id)).collect(),
                )
            });
            let tables = Arc::new(Tables::new(types.collect(), points));
            Order::Update { version, tables }
        }
        _ => Order::Unknown {
            operation: order.operation,
        },
    }
}

fn jitter() -> u64 {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    u64::from(random % JITTER_MILLIS)
}
