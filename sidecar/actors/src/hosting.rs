//! The actor types of this sidecar's applications, and who serves them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::actor::Actor;
use crate::error::Error;
use crate::message::{Answer, Message};
use crate::table::Settings;

/// Serves actors: the application, over HTTP or over a stream of its own.
#[async_trait]
pub trait Serve: Send + Sync + 'static {
    /// `chain` is what calls that the actor makes carry, where it is reentrant.
    async fn call(
        &self,
        actor: &Actor,
        chain: Option<&str>,
        message: Message,
    ) -> Result<Answer, Error>;

    /// The actor is given up, whatever the answer; an error is why the
    /// application does not know.
    async fn deactivate(&self, actor: &Actor) -> Result<(), Undelivered>;

    /// Whether the application is asked to deactivate actors. Not if it is unwell.
    fn is_reachable(&self) -> bool {
        true
    }
}

/// Why the application did not deactivate an actor.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Undelivered {
    pub text: String,
    /// The label of the metric.
    pub reason: String,
}

/// Stands for an application that hosts nothing.
pub struct Nobody;

#[async_trait]
impl Serve for Nobody {
    async fn call(&self, _: &Actor, _: Option<&str>, _: Message) -> Result<Answer, Error> {
        Err(Error::NoApp)
    }

    async fn deactivate(&self, _: &Actor) -> Result<(), Undelivered> {
        Ok(())
    }
}

/// The types of one application, or of one of its streams.
pub type Types = BTreeMap<Arc<str>, Settings>;

/// All types that are hosted, with how they are treated.
#[derive(Clone)]
pub struct Hosting(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    hosted: watch::Sender<Arc<Types>>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// By their numbers: the newest one serves a type.
    registered: BTreeMap<u64, (Types, Arc<dyn Serve>)>,
}

/// Types that are hosted until it is dropped. Those that somebody else hosts as
/// well stay.
pub struct Registration {
    number: u64,
    hosting: Hosting,
}

impl Hosting {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            hosted: watch::Sender::default(),
        }))
    }

    pub fn register(&self, types: Types, serve: Arc<dyn Serve>) -> Registration {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.registered.insert(number, (types, serve));
        self.announce(&state);
        drop(state);
        Registration {
            number,
            hosting: self.clone(),
        }
    }

    /// Who serves a type now.
    pub fn of(&self, kind: &str) -> Option<Arc<dyn Serve>> {
        let state = self.state();
        let newest_first = state.registered.values().rev();
        let mut having = newest_first.filter(|(types, _)| types.contains_key(kind));
        having.next().map(|(_, serve)| serve.clone())
    }

    /// The types as they are now, and every change.
    pub fn hosted(&self) -> watch::Receiver<Arc<Types>> {
        self.0.hosted.subscribe()
    }

    /// A type that is hosted, under its shared name.
    pub fn settings(&self, kind: &str) -> Option<(Arc<str>, Settings)> {
        let hosted = self.0.hosted.borrow();
        let (kind, settings) = hosted.get_key_value(kind)?;
        Some((kind.clone(), *settings))
    }

    pub fn is_hosted(&self, kind: &str) -> bool {
        self.0.hosted.borrow().contains_key(kind)
    }

    /// Whether anybody has registered, be it for no type.
    pub fn is_registered(&self) -> bool {
        !self.state().registered.is_empty()
    }

    fn announce(&self, state: &State) {
        let mut all = Types::new();
        for (types, _) in state.registered.values() {
            all.extend(
                types
                    .iter()
                    .map(|(name, settings)| (name.clone(), *settings)),
            );
        }
        self.0.hosted.send_if_modified(|hosted| {
            let changed = **hosted != all;
            if changed {
                *hosted = Arc::new(all);
            }
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Hosting {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.hosting.state();
        state.registered.remove(&self.number);
        self.hosting.announce(&state);
    }
}
