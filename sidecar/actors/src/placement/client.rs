//! One stream after the other to the service that says where actors are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status, Streaming};

use super::dial::Heard;
use super::{Effect, Event, Follow, Options, Phase, SCOPE};
use crate::actors::Actors;
use crate::beat::{self, Beating};
use crate::hosting::Types;

/// After every address was tried: the pause, and what chance adds. A new leader
/// waits for hosts for a second at least.
const PAUSE: Duration = Duration::from_millis(250);
const JITTER_MILLIS: u32 = 500;
/// After streams that have led to no table the pause is doubled up to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Messages that have not been taken yet, at most.
pub const UNSENT: usize = 256;

/// What is said on a stream, and how it is opened.
pub trait Protocol: Send {
    type Message: Send + 'static;
    type Order: Send + 'static;
    type Follower: Follow;

    /// Who is at the other end.
    const NAME: &'static str;
    /// Logged with each stream.
    const CONNECTED: &'static str;

    fn follower(&self) -> Self::Follower;
    fn report(&self, types: &[Arc<str>]) -> Self::Message;
    fn acknowledge(&self, phase: Phase, number: u64) -> Self::Message;
    fn open(&self, report: Self::Message) -> Opening<Self>;
    /// The order, and its name in metrics.
    fn read(order: Self::Order) -> (&'static str, <Self::Follower as Follow>::Order);
}

/// What is said, the orders that come, and when something came last.
pub type Stream<P> = (
    mpsc::Sender<<P as Protocol>::Message>,
    Streaming<<P as Protocol>::Order>,
    Heard,
);
pub type Opening<P> = BoxFuture<'static, Result<Stream<P>, Status>>;

struct Open<P: Protocol> {
    messages: mpsc::Sender<P::Message>,
    orders: Streaming<P::Order>,
    heard: Heard,
    /// What was last reported to it.
    reported: Vec<Arc<str>>,
}

type Opened<P> = Result<Box<Open<P>>, Status>;

enum Link<P: Protocol> {
    Opening(BoxFuture<'static, Opened<P>>),
    Open(Box<Open<P>>),
}

pub struct Client<'a, P: Protocol> {
    protocol: P,
    options: &'a Options,
    actors: &'a Actors,
    follower: P::Follower,
    hosted: watch::Receiver<Arc<Types>>,
    halted_tx: mpsc::UnboundedSender<u64>,
    /// Each new cause is logged once.
    logged: String,
    /// Before the next stream.
    pause: Duration,
}

impl<'a, P: Protocol> Client<'a, P> {
    /// Runs until there is somebody else to follow.
    pub async fn run(
        protocol: P,
        actors: &'a Actors,
        options: &'a Options,
        next: impl Future<Output = ()>,
    ) {
        let (halted_tx, mut halted) = mpsc::unbounded_channel();
        let mut client = Self {
            follower: protocol.follower(),
            protocol,
            hosted: actors.hosting().hosted(),
            actors,
            options,
            halted_tx,
            logged: String::new(),
            pause: Duration::ZERO,
        };
        let mut has_store = options.has_store.clone();
        let mut next = std::pin::pin!(next);
        let beat = &actors.inner().beat;
        let mut looks = tokio::time::interval(beat::PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let beating = Beating::start(beat);
        if let Err(error) = &beating {
            tracing::error!(target: SCOPE, "cannot start a thread: should this process be stopped for a while, it does not know it: {error}");
        }
        let mut link = client.open(Duration::ZERO);
        loop {
            if beat.has_lapsed(Instant::now()) {
                link = client.stood_still(link);
                beat.begin(Instant::now());
            }
            let deadline = client.follower.next_deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            link = tokio::select! {
                () = &mut next => return,
                () = due => client.handle(Event::Woken, link),
                _ = looks.tick() => client.look(link),
                Some(number) = halted.recv() => client.handle(Event::Halted { number }, link),
                _ = client.hosted.changed() => client.report(link),
                Ok(()) = has_store.changed() => client.report(link),
                step = step(&mut link) => client.step(step, link),
            };
        }
    }

    /// Says what is hosted now, if it is something else.
    fn report(&mut self, link: Link<P>) -> Link<P> {
        self.hosted.mark_unchanged();
        let types = self.actors.advertise();
        let Link::Open(mut open) = link else {
            return link;
        };
        if open.reported == types {
            return Link::Open(open);
        }
        let report = self.protocol.report(&types);
        open.reported = types;
        self.send(&open, "report", report);
        Link::Open(open)
    }

    fn send(&self, open: &Open<P>, operation: &str, message: P::Message) {
        let metrics = &self.actors.inner().metrics;
        match open.messages.try_send(message) {
            Ok(()) => metrics.reported(operation),
            // The stream has ended, or does not move: it is seen where it is read.
            Err(_) => metrics.not_reported(operation, "send"),
        }
    }

    fn step(&mut self, step: Step<P>, link: Link<P>) -> Link<P> {
        match step {
            Step::Opened(Ok(open)) => {
                tracing::info!(target: SCOPE, "{}", P::CONNECTED);
                self.logged.clear();
                self.report(Link::Open(open))
            }
            Step::Opened(Err(status)) => {
                self.log(&status);
                self.open(PAUSE + Duration::from_millis(jitter()))
            }
            Step::Received(Ok(Some(order))) => {
                self.logged.clear();
                let (operation, order) = P::read(order);
                self.actors.inner().metrics.ordered(operation);
                self.handle(Event::Ordered(order), link)
            }
            Step::Received(ended) => {
                let status = ended
                    .err()
                    .unwrap_or_else(|| Status::unavailable("it has ended"));
                self.log(&status);
                let event = match &link {
                    Link::Open(open) if open.heard.was_silent(Instant::now()) => Event::Silent,
                    _ => Event::Lost,
                };
                // The old connection is closed first.
                drop(link);
                let link = self.again();
                self.handle(event, link)
            }
        }
    }

    /// Gives up a stream on which nothing comes any more.
    fn look(&mut self, link: Link<P>) -> Link<P> {
        match link {
            Link::Open(open) if open.heard.is_silent(Instant::now()) => {
                tracing::warn!(target: SCOPE, "nothing comes from the {} any more: actors of this sidecar may be elsewhere soon, and it is asked again", P::NAME);
                drop(open);
                let link = self.again();
                self.handle(Event::Silent, link)
            }
            link => link,
        }
    }

    /// What was known when this process stopped may not be true any more.
    fn stood_still(&mut self, link: Link<P>) -> Link<P> {
        tracing::warn!(target: SCOPE, "this process stood still for more than a second: its actors may be elsewhere, and the {} is asked again", P::NAME);
        let link = match link {
            Link::Opening(_) => link,
            Link::Open(open) => {
                drop(open);
                self.again()
            }
        };
        self.handle(Event::Silent, link)
    }

    fn log(&mut self, status: &Status) {
        let name = P::NAME;
        // A replica that does not lead: the next one may.
        if follows(status) || status.message() == self.logged {
            tracing::debug!(target: SCOPE, "the {name} cannot be followed, trying again: {status}");
            return;
        }
        tracing::warn!(target: SCOPE, "the stream to the {name} has ended, trying again: {}", outrider_net::grpc::text(status));
        status.message().clone_into(&mut self.logged);
    }

    fn handle(
        &mut self,
        event: Event<<P::Follower as Follow>::Order>,
        mut link: Link<P>,
    ) -> Link<P> {
        let mut effects = Vec::new();
        self.follower.handle(Instant::now(), event, &mut effects);
        let mut fence = None;
        for effect in effects {
            match effect {
                Effect::Acknowledge(phase, number) => {
                    let name = match phase {
                        Phase::Lock => "lock",
                        Phase::Update => "update",
                        Phase::Unlock => "unlock",
                    };
                    let message = self.protocol.acknowledge(phase, number);
                    if let Link::Open(open) = &link {
                        self.send(open, name, message);
                    }
                }
                Effect::Route(known) => fence = Some(self.actors.set_routing(known)),
                Effect::Lose(which) => self.actors.lose(&which),
                Effect::Halt { number, which } => {
                    let gone = self.actors.halt(fence.unwrap_or(0), which);
                    let halted_tx = self.halted_tx.clone();
                    self.actors.spawn("actors that go", async move {
                        gone.await;
                        let _ = halted_tx.send(number);
                    });
                }
                Effect::Settled(tables) => {
                    self.pause = Duration::ZERO;
                    let types = self.actors.advertised();
                    if types.borrow().iter().all(|kind| tables.has(kind)) {
                        self.options.ready.ready();
                    }
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
    fn again(&mut self) -> Link<P> {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        self.open(pause + Duration::from_millis(jitter() / 10))
    }

    fn open(&self, pause: Duration) -> Link<P> {
        let reported = self.actors.advertise();
        let opening = self.protocol.open(self.protocol.report(&reported));
        Link::Opening(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let (messages, orders, heard) = opening.await?;
            Ok(Box::new(Open {
                messages,
                orders,
                heard,
                reported,
            }))
        }))
    }
}

/// What a link has to say next.
enum Step<P: Protocol> {
    Opened(Opened<P>),
    Received(Result<Option<P::Order>, Status>),
}

/// May be dropped and called again.
async fn step<P: Protocol>(link: &mut Link<P>) -> Step<P> {
    match link {
        Link::Opening(opening) => Step::Opened(opening.await),
        Link::Open(open) => Step::Received(open.orders.message().await),
    }
}

/// Whether a replica says that it does not lead.
pub fn follows(status: &Status) -> bool {
    let says = |text| status.message().contains(text);
    status.code() == Code::FailedPrecondition
        && (says("is not a leader") || says("is not the placement leader"))
}

fn jitter() -> u64 {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    u64::from(random % JITTER_MILLIS)
}
