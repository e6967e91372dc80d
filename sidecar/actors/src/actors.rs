//! The handle that everybody else has.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrider_call::metadata;
use outrider_host::Tasks;
use outrider_metrics::actor::Actors as Metrics;
use outrider_net::body::{self, Body};
use outrider_peer::call::Peers;
use outrider_resiliency::{BuiltIn, Error as Failed, Failure, Resiliency};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actor::Actor;
use crate::error::Error;
use crate::hosting::Hosting;
use crate::message::{Answer, Message};
use crate::remote::Remote;
use crate::routing::{Found, Known, Owner, Routing};
use crate::table::{CallId, Cause, Effect, Enter, Event, HaltId, Refusal, Table, Which};
use crate::turn::Ticket;
use crate::{CHAIN, SCOPE};

/// How long a call without a deadline of its own waits for its actor to be
/// somewhere.
const OWNER_LIMIT: Duration = Duration::from_secs(60);
/// How long it takes at most until placement is told of a type that is hosted, if
/// it is told at all.
const TOLD_LIMIT: Duration = Duration::from_millis(250);
/// How long the application may take to hear that an actor goes. Other
/// sidecars wait for one that has to go.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const HALT_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer that the actor has moved is believed to be newer than
/// what is known here.
const NEWER_LIMIT: Duration = Duration::from_millis(500);
/// How long the answers of a host may be on their way when it has left.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How often a call follows an actor that moves, before policies have their say.
const MOVES: usize = 4;

pub struct Options {
    pub namespace: String,
    /// Of the internal API of this sidecar, `host:port`.
    pub address: String,
    /// Whether there is a placement service.
    pub enabled: bool,
    /// Whether other sidecars prove who they are.
    pub mtls: bool,
    pub hosting: Hosting,
    pub peers: Peers,
    pub resiliency: Resiliency,
    pub metrics: Metrics,
    pub tasks: Tasks,
}

/// A call of an actor.
pub struct Call {
    pub actor: Actor,
    pub message: Message,
    /// Until then the application has to be called. None leaves it to the
    /// sidecar how long it looks for the actor.
    pub deadline: Option<Instant>,
}

/// Hears of actors that this sidecar no longer has, before they are halted.
pub trait Ownership: Send + Sync {
    fn lost(&self, is_lost: &dyn Fn(&Actor) -> bool);
}

/// How the runtime of actors stands, for the metadata API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub enabled: bool,
    /// Whether it is known what the application hosts.
    pub initialized: bool,
    /// Whether tables of placement are valid now.
    pub connected: bool,
}

/// All about actors in this sidecar. Cloning shares it.
#[derive(Clone)]
pub struct Actors(Arc<Inner>);

pub(crate) struct Inner {
    pub own: Arc<str>,
    pub hosting: Hosting,
    pub metrics: Metrics,
    pub remote: Remote,
    table: Mutex<Table<Arc<Ticket>>>,
    routing: watch::Sender<Arc<Routing>>,
    /// Whether it is known what the application hosts.
    initialized: watch::Sender<bool>,
    /// The types as placement is told.
    advertised: watch::Sender<Vec<Arc<str>>>,
    ownership: Mutex<Vec<Arc<dyn Ownership>>>,
    halts: Mutex<HashMap<HaltId, oneshot::Sender<()>>>,
    resiliency: Resiliency,
    next: AtomicU64,
    /// The table has an earlier deadline.
    earlier: Notify,
    tasks: Tasks,
}

impl Actors {
    pub fn new(options: Options) -> Self {
        let known = match options.enabled {
            true => Known::Nothing,
            false => Known::Disabled,
        };
        Self(Arc::new(Inner {
            own: options.address.into(),
            remote: Remote {
                peers: options.peers,
                namespace: options.mtls.then_some(options.namespace),
            },
            hosting: options.hosting,
            metrics: options.metrics,
            table: Mutex::new(Table::new(std::time::Instant::now())),
            routing: watch::Sender::new(Arc::new(Routing { fence: 0, known })),
            initialized: watch::Sender::new(false),
            advertised: watch::Sender::default(),
            ownership: Mutex::default(),
            halts: Mutex::default(),
            resiliency: options.resiliency,
            next: AtomicU64::new(1),
            earlier: Notify::new(),
            tasks: options.tasks,
        }))
    }

    pub fn hosting(&self) -> &Hosting {
        &self.0.hosting
    }

    /// The types that placement is told, and every change. The scheduler sends
    /// reminders of these.
    pub fn advertised(&self) -> watch::Receiver<Vec<Arc<str>>> {
        self.0.advertised.subscribe()
    }

    pub(crate) fn advertise(&self, types: Vec<Arc<str>>) {
        self.0.advertised.send_if_modified(|known| {
            let changed = *known != types;
            *known = types;
            changed
        });
    }

    /// Whether this sidecar hosts a type.
    pub fn is_hosted(&self, kind: &str) -> bool {
        self.0.hosting.hosted().borrow().contains_key(kind)
    }

    /// Whether reminders and timers of a type are for this sidecar: placement is
    /// told that it has the type. Waits until it is known what the application
    /// hosts.
    pub async fn serves(&self, kind: &str) -> bool {
        let (mut initialized, mut advertised) = (self.0.initialized.subscribe(), self.advertised());
        let is_told = |types: &Vec<Arc<str>>| types.iter().any(|it| **it == *kind);
        let told = async {
            // The senders are this one's own.
            let _ = initialized.wait_for(|known| *known).await;
            if !self.is_hosted(kind) && !is_told(&advertised.borrow()) {
                return false;
            }
            let told = advertised.wait_for(|types| is_told(types));
            let told = tokio::time::timeout(TOLD_LIMIT, told).await;
            matches!(told, Ok(Ok(_)))
        };
        tokio::time::timeout(OWNER_LIMIT, told)
            .await
            .unwrap_or(false)
    }

    /// Whether an actor is active in this sidecar's application.
    pub fn is_active(&self, actor: &Actor) -> bool {
        self.0.table().is_active(actor)
    }

    /// Of each type that is hosted, how many actors are active.
    pub fn counts(&self) -> Vec<(Arc<str>, usize)> {
        self.0.table().counts()
    }

    /// Of each type that is hosted, how many calls wait for their turn.
    pub fn waiting(&self) -> Vec<(Arc<str>, usize)> {
        self.0.table().waiting()
    }

    pub fn status(&self) -> Status {
        let known = &self.0.routing.borrow().known;
        Status {
            enabled: !matches!(known, Known::Disabled),
            initialized: *self.0.initialized.borrow(),
            connected: matches!(known, Known::Settled(_) | Known::Moving { .. }),
        }
    }

    /// It is known what the application hosts. Until then nobody is told that an
    /// actor is nowhere.
    pub fn set_initialized(&self) {
        self.0.initialized.send_replace(true);
    }

    /// From now on tells of actors that this sidecar loses.
    pub fn watch_ownership(&self, ownership: Arc<dyn Ownership>) {
        locked(&self.0.ownership).push(ownership);
    }

    /// Where an actor is. Waits for that until the deadline.
    pub async fn owner(&self, actor: &Actor, deadline: Option<Instant>) -> Result<Owner, Error> {
        self.0
            .look_up(actor, deadline)
            .await
            .map(|(owner, _)| owner)
    }

    /// Calls an actor, wherever it is.
    pub async fn call(&self, call: Call) -> Result<Answer, Error> {
        let Call {
            actor,
            message,
            deadline,
        } = call;
        let resiliency = &self.0.resiliency;
        let slot = Mutex::new(Some(message));
        let once = |keep| self.0.once(&actor, &slot, deadline, keep);
        if let Some(policy) = resiliency.actor_before_lock(&actor.kind, &actor.id) {
            let keep = policy.has_retries();
            let running = policy.run(|_| async { once(keep).await.map_err(Asked) });
            return running.await.map_err(unwrapped);
        }
        let first = match once(false).await {
            Err(error) if error.may_be_sent_again() => error,
            answered => return answered,
        };
        // Kept off the way of calls that find their actor.
        let first = Mutex::new(Some(first));
        let policy = resiliency.built_in(BuiltIn::ActorNotFound);
        let again = Box::pin(policy.run(|_| async {
            let failed = locked(&first).take();
            match failed {
                Some(error) => Err(BuiltInFailure(error)),
                None => once(false).await.map_err(BuiltInFailure),
            }
        }));
        again.await.map_err(|failed| match failed {
            Failed::Failed(BuiltInFailure(error)) => error,
            other => Error::Policy(other.to_string()),
        })
    }

    /// Calls an actor of this sidecar, for another one that believes it is here.
    pub async fn call_here(&self, call: Call) -> Result<Answer, Error> {
        let slot = Mutex::new(Some(call.message));
        match self.0.look_up(&call.actor, call.deadline).await? {
            (Owner::Local, fence) => {
                self.0
                    .local(&call.actor, &slot, call.deadline, fence, false)
                    .await
            }
            (Owner::Remote(_), _) => Err(Error::Moved),
        }
    }

    pub(crate) fn set_routing(&self, known: Known) -> u64 {
        let mut number = 0;
        self.0.routing.send_modify(|routing| {
            number = routing.fence + 1;
            *routing = Arc::new(Routing {
                fence: number,
                known,
            });
        });
        number
    }

    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.tasks.spawn(name, task);
    }

    pub(crate) fn own(&self) -> &Arc<str> {
        &self.0.own
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Has actors go, and waits until they are gone.
    pub fn halt(&self, fence: u64, which: Which) -> impl Future<Output = ()> + Send + use<> {
        for ownership in locked(&self.0.ownership).iter() {
            ownership.lost(&|actor| which.has(actor));
        }
        let halt = HaltId(self.0.number());
        let (done_tx, done) = oneshot::channel();
        locked(&self.0.halts).insert(halt, done_tx);
        self.0.handle(Event::Halt { halt, fence, which });
        async move {
            let _ = done.await;
        }
    }

    /// Waits until placement has all our actors elsewhere, for at most `limit`,
    /// then has those go that are left. No call is taken afterwards.
    pub async fn leave(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut routing = self.0.routing.subscribe();
        let gone = routing.wait_for(|routing| match &routing.known {
            Known::Settled(tables) => !tables.is_host(&self.0.own),
            Known::Moving { .. } => false,
            Known::Disabled | Known::Nothing | Known::Closed => true,
        });
        let _ = tokio::time::timeout_at(deadline - limit / 3, gone).await;
        if tokio::time::timeout_at(deadline, self.close())
            .await
            .is_err()
        {
            tracing::warn!(target: SCOPE, "actors are still active, although there was time to end them: the application does not answer");
        }
    }

    async fn close(&self) {
        let fence = self.set_routing(Known::Closed);
        self.halt(fence, Which::All).await;
    }

    /// Follows deadlines, and what is hosted, until `stopping` is cancelled.
    pub async fn run(self, stopping: CancellationToken) {
        let mut hosted = self.0.hosting.hosted();
        hosted.mark_changed();
        loop {
            let earlier = self.0.earlier.notified();
            let next = self.0.table().next_deadline();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = due => self.0.handle(Event::Woken),
                () = earlier => {}
                changed = hosted.changed() => {
                    if changed.is_err() { return }
                    let types = hosted.borrow_and_update().clone();
                    self.host((*types).clone());
                }
            }
        }
    }

    fn host(&self, types: crate::hosting::Types) {
        let gone = {
            let table = self.0.table();
            let counts = table.counts().into_iter();
            let known = counts.map(|(kind, _)| kind);
            known
                .filter(|kind| !types.contains_key(kind))
                .collect::<std::collections::BTreeSet<_>>()
        };
        self.0.handle(Event::Hosted(types));
        if !gone.is_empty() {
            let fence = self.0.routing.borrow().fence;
            drop(self.halt(fence, Which::Types(gone)));
        }
    }
}

impl Inner {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table<Arc<Ticket>>> {
        locked(&self.table)
    }

    fn handle(self: &Arc<Self>, event: Event<Arc<Ticket>>) {
        let mut effects = Vec::new();
        let is_earlier = {
            let mut table = self.table();
            let before = table.next_deadline();
            table.handle(std::time::Instant::now(), event, &mut effects);
            let after = table.next_deadline();
            after.is_some_and(|after| before.is_none_or(|before| after < before))
        };
        if is_earlier {
            self.earlier.notify_one();
        }
        for effect in effects {
            match effect {
                Effect::Run(ticket) => ticket.run(),
                Effect::Refuse(ticket, why) => ticket.refuse(why),
                Effect::Cancel(ticket, actor) => {
                    tracing::error!(target: SCOPE, "Timed out waiting for actor type '{}' in-flight lock claims to be released: the call of actor {actor} is cut off, because the actor has to go", actor.kind);
                    ticket.cancel();
                }
                Effect::Deactivate(actor, cause) => {
                    let deactivating = self.clone().deactivate(actor, cause);
                    self.tasks.spawn("deactivation of an actor", deactivating);
                }
                Effect::Halted(halt) => {
                    if let Some(done) = locked(&self.halts).remove(&halt) {
                        let _ = done.send(());
                    }
                }
            }
        }
    }

    async fn deactivate(self: Arc<Self>, actor: Actor, cause: Cause) {
        let serve = self
            .hosting
            .of(&actor.kind)
            .filter(|serve| serve.is_reachable());
        if let Some(serve) = serve {
            let limit = match cause {
                Cause::Idle => IDLE_LIMIT,
                Cause::Halted => HALT_LIMIT,
            };
            let telling = tokio::time::timeout(limit, serve.deactivate(&actor));
            // At the end of the process there may be no more time for it.
            let stopping = self.tasks.stopping();
            let told = stopping.run_until_cancelled(telling).await;
            match told.unwrap_or(Ok(Ok(()))) {
                Ok(Ok(())) => self.metrics.deactivated(&actor.kind),
                Ok(Err(error)) => {
                    self.metrics.not_deactivated(&actor.kind, &error.reason);
                    tracing::error!(target: SCOPE, "actor {actor} is gone, but the application could not be told: {error}");
                }
                Err(_) => {
                    self.metrics.not_deactivated(&actor.kind, "timeout");
                    tracing::error!(target: SCOPE, "actor {actor} is gone, but the application has not answered within {}s that it knows", limit.as_secs());
                }
            }
        }
        if cause == Cause::Halted {
            self.metrics.rebalanced(&actor.kind);
        }
        tracing::debug!(target: SCOPE, "actor {actor} is deactivated");
        self.handle(Event::Deactivated { actor });
    }

    async fn look_up(
        &self,
        actor: &Actor,
        deadline: Option<Instant>,
    ) -> Result<(Owner, u64), Error> {
        if let Some(found) = self.find(actor) {
            return found;
        }
        let deadline = deadline.unwrap_or_else(|| Instant::now() + OWNER_LIMIT);
        let mut routing = self.routing.subscribe();
        let mut initialized = self.initialized.subscribe();
        loop {
            routing.mark_unchanged();
            initialized.mark_unchanged();
            if let Some(found) = self.find(actor) {
                return found;
            }
            // Both senders are this one's own.
            tokio::select! {
                _ = routing.changed() => {}
                _ = initialized.changed() => {}
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Error::Late("placement has not said where the actor is"));
                }
            }
        }
    }

    /// None if it is not known yet.
    fn find(&self, actor: &Actor) -> Option<Result<(Owner, u64), Error>> {
        let routing = self.routing.borrow();
        Some(match routing.find(&actor.kind, &actor.id, &self.own) {
            Found::At(owner) => Ok((owner, routing.fence)),
            Found::Nobody if !*self.initialized.borrow() => return None,
            Found::Nobody => Err(Error::NoAddress(actor.clone())),
            Found::Wait => return None,
            Found::Disabled => Err(Error::NoPlacement),
            Found::Closed => Err(Error::Closed),
        })
    }

    /// One try, which follows an actor that moves. With `keep` the message can
    /// be sent again also after it was sent.
    async fn once(
        self: &Arc<Self>,
        actor: &Actor,
        slot: &Mutex<Option<Message>>,
        deadline: Option<Instant>,
        keep: bool,
    ) -> Result<Answer, Error> {
        let mut moves = 0;
        loop {
            let (owner, fence) = self.look_up(actor, deadline).await?;
            let answered = match owner {
                Owner::Local => self.local(actor, slot, deadline, fence, keep).await,
                Owner::Remote(host) => {
                    let message = locked(slot).as_ref().and_then(Message::again);
                    let message = message.ok_or_else(sent_before)?;
                    tokio::select! {
                        answered = self.remote.call(&host, actor, message, deadline) => answered,
                        error = self.lost(&host.address) => Err(error),
                    }
                }
            };
            match answered {
                Err(error) if error.is_elsewhere() && moves < MOVES => moves += 1,
                answered => return answered,
            }
            let mut routing = self.routing.subscribe();
            if routing.borrow().fence == fence {
                let newer = tokio::time::timeout(NEWER_LIMIT, routing.changed());
                let _ = newer.await;
            }
        }
    }

    /// Waits until placement knows a host no longer. What it was asked has no
    /// answer then: it may be frozen, with its connections open.
    async fn lost(&self, address: &str) -> Error {
        let mut routing = self.routing.subscribe();
        loop {
            routing.mark_unchanged();
            // The sender is this one's own.
            let _ = routing.changed().await;
            if let Known::Settled(tables) = &routing.borrow().known
                && !tables.is_host(address)
            {
                break;
            }
        }
        // One that has left has answered before; the answer may be on its way.
        tokio::time::sleep(LAST_ANSWER).await;
        let text = format!("the host of the actor at {address} is gone, and has not answered");
        Error::Remote(Box::new(tonic::Status::unavailable(text)))
    }

    /// Waits for the turn of a call and has the application do it.
    async fn local(
        self: &Arc<Self>,
        actor: &Actor,
        slot: &Mutex<Option<Message>>,
        deadline: Option<Instant>,
        fence: u64,
        keep: bool,
    ) -> Result<Answer, Error> {
        let hosted = self.hosting.hosted();
        let (kind, settings) = {
            let hosted = hosted.borrow();
            let found = hosted.get_key_value(&*actor.kind);
            let (kind, settings) = found.ok_or(Error::Moved)?;
            (kind.clone(), *settings)
        };
        let serve = self.hosting.of(&kind).ok_or(Error::Moved)?;
        let actor = Actor {
            kind,
            id: actor.id.clone(),
        };
        let (chain, beside) = {
            let message = locked(slot);
            let message = message.as_ref().ok_or_else(sent_before)?;
            let chain = settings.depth.map(|_| chain(message));
            (chain, message.is_beside())
        };
        let ticket = Arc::new(Ticket::default());
        let turn = Turn {
            inner: self.clone(),
            actor: actor.clone(),
            call: CallId(self.number()),
        };
        self.handle(Event::Enter(Enter {
            actor: actor.clone(),
            call: turn.call,
            ticket: ticket.clone(),
            chain: chain.clone(),
            deadline: deadline.map(Into::into),
            fence,
            beside,
        }));
        ticket.turn().await.map_err(|why| match why {
            Refusal::Moved => Error::Moved,
            Refusal::TooDeep => Error::TooDeep,
            Refusal::Late => Error::Late("others have kept the actor busy"),
        })?;
        let message = {
            let mut slot = locked(slot);
            let kept = if keep {
                slot.as_ref().and_then(Message::again)
            } else {
                None
            };
            std::mem::replace(&mut *slot, kept).ok_or_else(sent_before)?
        };
        let serving = self.under_policy(&actor, serve.call(&actor, chain.as_deref(), message));
        let answer = tokio::select! {
            answered = serving => answered?,
            () = ticket.canceled() => return Err(Error::Canceled),
        };
        Ok(turn.answer(answer))
    }

    /// Calls the application under the timeout that resources have for actors.
    async fn under_policy(
        &self,
        actor: &Actor,
        serving: impl Future<Output = Result<Answer, Error>>,
    ) -> Result<Answer, Error> {
        let Some(policy) = self.resiliency.actor_after_lock(&actor.kind, &actor.id) else {
            return serving.await;
        };
        let serving = Mutex::new(Some(Box::pin(serving)));
        let running = policy.run(|_| {
            let serving = locked(&serving).take();
            async {
                match serving {
                    Some(serving) => serving.await.map_err(Asked),
                    None => Err(Asked(sent_before())),
                }
            }
        });
        running.await.map_err(unwrapped)
    }
}

fn sent_before() -> Error {
    Error::Invalid("the request was sent before".to_owned())
}

/// The chain that a call belongs to; a new one if it does not say.
fn chain(message: &Message) -> Arc<str> {
    if let Message::Method(request) = message
        && let Some(given) = metadata::text(&request.metadata, CHAIN)
        && !given.is_empty()
    {
        return given.into();
    }
    uuid::Uuid::new_v4().to_string().into()
}

/// A call's place in the table, until it is dropped.
struct Turn {
    inner: Arc<Inner>,
    actor: Actor,
    call: CallId,
}

impl Turn {
    /// The turn ends with the body. Nothing cuts that off any more.
    fn answer(self, mut answer: Answer) -> Answer {
        if let Answer::Method(response) = &mut answer
            && !matches!(response.body, Body::Empty | Body::Full(_))
        {
            self.inner.handle(Event::Answered {
                actor: self.actor.clone(),
                call: self.call,
            });
            let body = std::mem::replace(&mut response.body, Body::Empty);
            response.body = body::hold(body, self);
        }
        answer
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.handle(Event::Left {
            actor: self.actor.clone(),
            call: self.call,
        });
    }
}

/// A failure as policies of users look at it.
struct Asked(Error);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for Asked {
    fn is_permanent(&self) -> bool {
        self.0.is_permanent()
    }
}

fn unwrapped(failed: Failed<Asked>) -> Error {
    match failed {
        Failed::Failed(Asked(error)) => error,
        Failed::TimedOut => Error::TimedOut,
        other => Error::Policy(other.to_string()),
    }
}

/// A failure as the built-in policy looks at it.
struct BuiltInFailure(Error);

impl fmt::Display for BuiltInFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for BuiltInFailure {
    fn is_permanent(&self) -> bool {
        !self.0.may_be_sent_again()
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
