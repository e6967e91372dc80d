//! Timers: what actors want to be called for later, for as long as this sidecar
//! has the actor.

mod engine;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use jiff::Timestamp;
use outrider_host::Tasks;
use outrider_metrics::actor::Actors as Metrics;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::SCOPE;
use crate::actor::Actor;
use crate::actors::{Actors, Call, Ownership};
use crate::message::{self, Answer, Message, Wanted};
use crate::routing::Owner;

pub use engine::Full;
use engine::{Effect, Engine, Event, Id, Now};
pub use plan::{Invalid, Request, Timer};

/// Why a timer is not registered, deleted or shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't create timer for actor {}||{}: actor type not registered", .0.kind, .0.id)]
    NotHosted(Actor),
    /// Another sidecar has the actor.
    #[error("actor {}||{} belongs to another host", .0.kind, .0.id)]
    NotOwned(Actor),
    #[error("actor timer not found: {0}")]
    Unknown(String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Full(#[from] Full),
    /// It is not known where the actor is.
    #[error(transparent)]
    Actors(#[from] crate::Error),
}

/// The timers of this sidecar. Cloning shares them.
#[derive(Clone)]
pub struct Timers(Arc<Inner>);

struct Inner {
    engine: Mutex<Engine>,
    actors: Actors,
    metrics: Metrics,
    tasks: Tasks,
    started: Instant,
    /// There is an earlier deadline.
    earlier: Notify,
}

impl Timers {
    pub fn new(actors: Actors, metrics: Metrics, tasks: Tasks) -> Self {
        let inner = Arc::new(Inner {
            engine: Mutex::default(),
            actors: actors.clone(),
            metrics,
            tasks,
            started: Instant::now(),
            earlier: Notify::new(),
        });
        actors.watch_ownership(Arc::new(Follow(Arc::downgrade(&inner))));
        Self(inner)
    }

    /// Registers a timer of an actor of this sidecar. One of the same name is
    /// replaced.
    pub async fn register(&self, actor: Actor, request: Request) -> Result<(), Error> {
        if !self.0.actors.serves(&actor.kind).await {
            return Err(Error::NotHosted(actor));
        }
        self.check_owner(&actor).await?;
        let key = format!("{}||{}||{}", actor.kind, actor.id, request.name);
        let name = request.name.clone();
        let timer = Timer::plan(request, &key, Timestamp::now())?;
        self.0.engine().admits(&actor, &timer)?;
        self.0
            .handle(Event::Registered(actor.clone(), Arc::new(timer)));
        // It may have moved in between, and then nobody would end the timer.
        let owned = self.check_owner(&actor).await;
        if owned.is_err() {
            self.0.handle(Event::Deleted(actor, name.into()));
        }
        owned
    }

    /// Deletes a timer, if it is there.
    pub async fn delete(&self, actor: Actor, name: &str) -> Result<(), Error> {
        if self.0.actors.serves(&actor.kind).await {
            self.check_owner(&actor).await?;
            self.0.handle(Event::Deleted(actor, name.into()));
        }
        Ok(())
    }

    pub async fn get(&self, actor: &Actor, name: &str) -> Result<Arc<Timer>, Error> {
        self.check(actor).await?;
        let found = self.0.engine().get(actor, name);
        found.ok_or_else(|| Error::Unknown(name.to_owned()))
    }

    /// Those of an actor, by their names.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Arc<Timer>>, Error> {
        self.check(actor).await?;
        Ok(self.0.engine().list(actor))
    }

    /// How many timers there are of each type that has had some.
    pub fn counts(&self) -> Vec<(Arc<str>, u64)> {
        let engine = self.0.engine();
        let counts = engine.counts();
        counts
            .map(|(kind, timers)| (kind.clone(), timers as u64))
            .collect()
    }

    /// Fires timers until `stopping` is cancelled.
    pub async fn run(self, stopping: CancellationToken) {
        loop {
            let earlier = self.0.earlier.notified();
            let next = self.0.engine().next_deadline();
            let due = async {
                match next.and_then(|next| self.0.started.checked_add(next)) {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = due => self.0.handle(Event::Woken),
                () = earlier => {}
            }
        }
    }

    async fn check(&self, actor: &Actor) -> Result<(), Error> {
        if !self.0.actors.serves(&actor.kind).await {
            return Err(Error::NotHosted(actor.clone()));
        }
        self.check_owner(actor).await
    }

    async fn check_owner(&self, actor: &Actor) -> Result<(), Error> {
        match self.0.actors.owner(actor, None).await? {
            Owner::Local => Ok(()),
            Owner::Remote(_) => Err(Error::NotOwned(actor.clone())),
        }
    }
}

impl Inner {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp::now(),
            steady: self.started.elapsed(),
        }
    }

    fn handle(self: &Arc<Self>, event: Event) {
        let mut effects = Vec::new();
        let is_earlier = {
            let mut engine = self.engine();
            let before = engine.next_deadline();
            engine.handle(self.now(), event, &mut effects);
            let after = engine.next_deadline();
            after.is_some_and(|after| before.is_none_or(|before| after < before))
        };
        if is_earlier {
            self.earlier.notify_one();
        }
        for Effect::Fire { actor, id, timer } in effects {
            let firing = Firing {
                inner: self.clone(),
                actor,
                id,
                cancel: false,
            };
            self.tasks.spawn("timer", firing.run(timer));
        }
    }
}

/// Deletes the timers of actors that go to other sidecars.
struct Follow(Weak<Inner>);

impl Ownership for Follow {
    fn lost(&self, is_lost: &dyn Fn(&Actor) -> bool) {
        let Some(inner) = self.0.upgrade() else {
            return;
        };
        let lost: Vec<Actor> = {
            let engine = inner.engine();
            let lost = engine.actors().filter(|actor| is_lost(actor));
            lost.cloned().collect()
        };
        if !lost.is_empty() {
            tracing::info!(target: SCOPE, "{} actors with timers are this sidecar's no more: their timers are deleted", lost.len());
            inner.handle(Event::Lost(lost));
        }
    }
}

/// A tick under way. The next one waits until this is dropped.
struct Firing {
    inner: Arc<Inner>,
    actor: Actor,
    id: Id,
    cancel: bool,
}

impl Firing {
    async fn run(mut self, timer: Arc<Timer>) {
        let (inner, id) = (self.inner.clone(), self.id);
        let message = Message::Timer(message::Timer {
            wanted: Wanted::while_true(move || inner.engine().has(id)),
            name: timer.name.to_string(),
            data: timer.data.clone(),
            callback: timer.callback.clone(),
            due_time: timer.due_time.clone(),
            period: timer.period.clone(),
        });
        let call = Call {
            actor: self.actor.clone(),
            message,
            deadline: None,
        };
        let handled = self.inner.actors.call_here(call).await;
        let metrics = &self.inner.metrics;
        match handled {
            Ok(answer) => {
                metrics.timer_fired(&self.actor.kind, true);
                self.cancel = matches!(answer, Answer::Handled { cancel: true });
            }
            // It went to another host on the way, and its timers with it.
            Err(crate::Error::Moved | crate::Error::Closed) => {
                tracing::debug!(target: SCOPE, "timer {} of actor {} is dropped: the actor has moved", timer.name, self.actor);
            }
            Err(error) => {
                metrics.timer_fired(&self.actor.kind, false);
                tracing::error!(target: SCOPE, "Error executing timer: {error}: timer {} of actor {}", timer.name, self.actor);
            }
        }
    }
}

impl Drop for Firing {
    fn drop(&mut self) {
        self.inner.handle(Event::Fired {
            actor: self.actor.clone(),
            id: self.id,
            cancel: self.cancel,
        });
    }
}
