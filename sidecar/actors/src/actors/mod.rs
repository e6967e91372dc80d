//! The handle that everybody else has.

mod calls;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrider_host::Tasks;
use outrider_metrics::actor::Actors as Metrics;
use outrider_peer::call::Peers;
use outrider_resiliency::{BuiltIn, Error as Failed, Resiliency};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::SCOPE;
use crate::actor::Actor;
use crate::beat::Beat;
use crate::error::Error;
use crate::hosting::Hosting;
use crate::message::{Answer, Message};
use crate::remote::Remote;
use crate::routing::{Found, Known, Owner, Routing};
use crate::table::{Cause, Effect, Event, HaltId, Table, Which};
use crate::turn::Ticket;
use calls::{Asked, BuiltInFailure, unwrapped};

/// How long a call without a deadline of its own waits for its actor to be
/// somewhere.
const OWNER_LIMIT: Duration = Duration::from_secs(60);
/// How long the application may take to hear that an actor goes.
const TELL_LIMIT: Duration = Duration::from_secs(30);
/// How long others wait for that if the actor has to go: placement gives up a
/// sidecar that is silent for 8 s. The application hears of it nonetheless.
const HALT_LIMIT: Duration = Duration::from_secs(2);
/// Actors that are deactivated at once.
const MOST_TOLD: u32 = 64;

pub struct Options {
    pub namespace: String,
    /// Of the internal API of this sidecar, `host:port`.
    pub address: String,
    /// Whether actors are on before anybody has said where they are.
    pub enabled: bool,
    /// Whether there is a store for the state of actors now: without one
    /// nothing is hosted.
    pub has_store: HasStore,
    /// Whether other sidecars prove who they are.
    pub mtls: bool,
    pub hosting: Hosting,
    pub peers: Peers,
    pub resiliency: Resiliency,
    pub metrics: Metrics,
    pub tasks: Tasks,
}

pub type HasStore = Box<dyn Fn() -> bool + Send + Sync>;

/// A call of an actor.
pub struct Call {
    pub actor: Actor,
    pub message: Message,
    /// Until then the application has to be called. None leaves it to the
    /// sidecar how long it looks for the actor.
    pub deadline: Option<Instant>,
}

/// Hears of actors that this sidecar no longer has.
pub trait Ownership: Send + Sync {
    fn lost(&self, is_lost: &dyn Fn(&Actor) -> bool);
}

/// How the runtime of actors stands, for the metadata API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub enabled: bool,
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
    pub routing: watch::Sender<Arc<Routing>>,
    /// While somebody says where actors are.
    pub beat: Arc<Beat>,
    /// Whether it is known what the application hosts.
    initialized: watch::Sender<bool>,
    has_store: HasStore,
    /// The types as last reported to placement.
    advertised: watch::Sender<Vec<Arc<str>>>,
    ownership: Mutex<Vec<Arc<dyn Ownership>>>,
    halts: Mutex<HashMap<HaltId, oneshot::Sender<()>>>,
    /// The last one.
    halted: watch::Sender<HaltId>,
    telling: Semaphore,
    pub resiliency: Resiliency,
    next: AtomicU64,
    /// The table has an earlier deadline.
    earlier: Notify,
    pub tasks: Tasks,
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
            beat: Arc::new(Beat::new(std::time::Instant::now())),
            initialized: watch::Sender::new(false),
            has_store: options.has_store,
            advertised: watch::Sender::default(),
            ownership: Mutex::default(),
            halts: Mutex::default(),
            halted: watch::Sender::new(HaltId(0)),
            telling: Semaphore::new(MOST_TOLD as usize),
            resiliency: options.resiliency,
            next: AtomicU64::new(1),
            earlier: Notify::new(),
            tasks: options.tasks,
        }))
    }

    pub fn hosting(&self) -> &Hosting {
        &self.0.hosting
    }

    /// The types that are reported to placement, and every change. The scheduler sends
    /// reminders of these.
    pub fn advertised(&self) -> watch::Receiver<Vec<Arc<str>>> {
        self.0.advertised.subscribe()
    }

    /// Takes over which types are for this sidecar now, to tell placement.
    pub(crate) fn advertise(&self) -> Vec<Arc<str>> {
        let hosted = self.0.hosting.hosted();
        let hosted = hosted.borrow().clone();
        let types = hosted.keys().filter(|kind| self.0.is_for_here(kind));
        let types: Vec<_> = types.cloned().collect();
        self.0.advertised.send_if_modified(|known| {
            let changed = *known != types;
            known.clone_from(&types);
            changed
        });
        types
    }

    /// Whether reminders and timers of a type are for this sidecar. Waits until
    /// it is known what the application hosts.
    pub async fn serves(&self, kind: &str) -> bool {
        let mut initialized = self.0.initialized.subscribe();
        let known = initialized.wait_for(|known| *known);
        let known = tokio::time::timeout(OWNER_LIMIT, known).await;
        // The sender is this one's own.
        known.is_ok() && self.0.is_for_here(kind)
    }

    /// Whether an actor is active in this sidecar's application.
    pub fn is_active(&self, actor: &Actor) -> bool {
        self.0.table().is_active(actor)
    }

    /// Whether an actor may write its state here: it is active, has not been lost
    /// since, and tables that are valid now have it here. Waits for those for a
    /// limited time.
    pub async fn writes(&self, actor: &Actor, limit: Duration) -> Result<bool, Error> {
        let mut routing = self.0.routing.subscribe();
        let writes = |routing: &Routing| {
            // Then other tables follow.
            let has_lapsed = self.0.beat.has_lapsed(std::time::Instant::now());
            let may = routing.writes(actor, &self.0.own);
            may.filter(|_| !has_lapsed)
        };
        let owns = || self.0.table().owns(actor);
        let known = routing.wait_for(|routing| !owns() || writes(routing).is_some());
        match tokio::time::timeout(limit, known).await {
            Ok(Ok(routing)) => Ok(owns() && writes(&routing) == Some(true)),
            // The sender is this one's own.
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Late("placement has not said where the actor is")),
        }
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
            connected: matches!(known, Known::Settled(_) | Known::Moving { .. }),
        }
    }

    /// It is known what the application hosts. Until then nobody hears that an
    /// actor is nowhere.
    pub fn set_initialized(&self) {
        self.0.initialized.send_replace(true);
    }

    pub(crate) fn initialized(&self) -> watch::Receiver<bool> {
        self.0.initialized.subscribe()
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
            // Once it is closed it stays so.
            let known = match routing.known {
                Known::Closed => Known::Closed,
                _ => known,
            };
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

    /// Tells of actors that this sidecar no longer has. Only of what is known to
    /// be elsewhere: without a table, actors are gone and may come back.
    pub(crate) fn lose(&self, which: &Which) {
        for ownership in locked(&self.0.ownership).iter() {
            ownership.lost(&|actor| which.has(actor));
        }
    }

    /// Has actors go, and waits until they are gone.
    pub fn halt(&self, fence: u64, which: Which) -> impl Future<Output = ()> + Send + use<> {
        let halt = HaltId(self.0.number());
        let (done_tx, done) = oneshot::channel();
        locked(&self.0.halts).insert(halt, done_tx);
        self.0.handle(Event::Halt { halt, fence, which });
        self.0.halted.send_replace(halt);
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
            known @ (Known::Settled(_) | Known::Moving { .. }) => known.has_left(&self.0.own),
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
        // The application hears of those before, for as long as there is time.
        let _told = self.0.telling.acquire_many(MOST_TOLD).await;
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
            let which = Which::Types(gone);
            self.lose(&which);
            drop(self.halt(fence, which));
        }
    }
}

impl Inner {
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a type is reported to placement, as of now.
    fn is_for_here(&self, kind: &str) -> bool {
        let is_off = matches!(self.routing.borrow().known, Known::Disabled);
        !is_off && self.is_hosted(kind)
    }

    fn is_hosted(&self, kind: &str) -> bool {
        self.hosting.is_hosted(kind) && (self.has_store)()
    }

    fn table(&self) -> MutexGuard<'_, Table<Arc<Ticket>>> {
        locked(&self.table)
    }

    pub fn handle(self: &Arc<Self>, event: Event<Arc<Ticket>>) {
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

    /// Tells the application. What waits for the actor to go does so for a
    /// limited time.
    async fn deactivate(self: Arc<Self>, actor: Actor, cause: Cause) {
        let mut telling = Box::pin(self.tell(&actor));
        tokio::select! {
            () = &mut telling => self.deactivated(&actor, cause),
            () = self.has_to_be_gone(&actor) => {
                self.deactivated(&actor, cause);
                telling.await;
            }
        }
    }

    fn deactivated(self: &Arc<Self>, actor: &Actor, cause: Cause) {
        if cause == Cause::Halted {
            self.metrics.rebalanced(&actor.kind);
        }
        tracing::debug!(target: SCOPE, "actor {actor} is deactivated");
        self.handle(Event::Deactivated {
            actor: actor.clone(),
        });
    }

    /// Waits for as long as a halt waits for an actor that is being deactivated.
    async fn has_to_be_gone(&self, actor: &Actor) {
        let mut halted = self.halted.subscribe();
        while !self.table().is_halted(actor) {
            // The sender is this one's own.
            let _ = halted.changed().await;
        }
        tokio::time::sleep(HALT_LIMIT).await;
    }

    async fn tell(&self, actor: &Actor) {
        let serve = self.hosting.of(&actor.kind);
        let Some(serve) = serve.filter(|serve| serve.is_reachable()) else {
            return;
        };
        let telling = async {
            // It is never closed.
            let _place = self.telling.acquire().await;
            serve.deactivate(actor).await
        };
        let telling = tokio::time::timeout(TELL_LIMIT, telling);
        // At the end of the process there may be no more time for it.
        let stopping = self.tasks.stopping();
        match stopping.run_until_cancelled(telling).await {
            None | Some(Ok(Ok(()))) => self.metrics.deactivated(&actor.kind),
            Some(Ok(Err(error))) => {
                self.metrics.not_deactivated(&actor.kind, &error.reason);
                tracing::error!(target: SCOPE, "actor {actor} is gone, but the application could not be asked to deactivate it: {error}");
            }
            Some(Err(_)) => {
                self.metrics.not_deactivated(&actor.kind, "timeout");
                tracing::error!(target: SCOPE, "actor {actor} is gone, but the application has not answered within {}s that it knows", TELL_LIMIT.as_secs());
            }
        }
    }

    pub async fn look_up(
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
            // What is hosted here is reported to placement, or will be.
            Found::Nobody if !*self.initialized.borrow() || self.is_hosted(&actor.kind) => {
                return None;
            }
            Found::Nobody => Err(Error::NoAddress(actor.clone())),
            Found::Wait => return None,
            Found::Disabled => Err(Error::NoPlacement),
            Found::Closed => Err(Error::Closed),
        })
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
