//! Where actors are: says which types are hosted here, to the placement service
//! or to the scheduler that leads placement, and takes over the tables.

mod authority;
mod client;
mod dial;
pub mod follower;
mod leader;
mod rounds;
mod service;

use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_host::Target;
use outrider_scheduler_client::placement::Announced;
use outrider_security::Connector;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::actors::Actors;
use crate::hosts::Tables;
use crate::routing::Known;
use crate::table::Which;
use authority::{Authority, Choice};
use client::Client;

const SCOPE: &str = "dapr.runtime.actors.placement";

pub struct Options {
    /// Of the placement service, `host:port`, tried in their order; of a name
    /// all its addresses are. None where there is no such service.
    pub addresses: Vec<String>,
    pub service: Connector,
    /// What schedulers say about placement. None where there are none.
    pub announced: Option<watch::Receiver<Announced>>,
    pub scheduler: Connector,
    /// How long schedulers may be out of reach before the placement service is
    /// asked.
    pub startup: Duration,
    pub app_id: String,
    pub namespace: String,
    /// Longest time of a round.
    pub timeout: Duration,
    /// Changes with what [`crate::Options::has_store`] says.
    pub has_store: watch::Receiver<bool>,
    /// Ready with the first tables that have all that is hosted here.
    pub ready: Target,
}

/// The phases of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Lock,
    Update,
    Unlock,
}

/// `O` is an order of a round.
#[derive(Debug, Clone)]
pub enum Event<O> {
    Ordered(O),
    /// The actors of an [`Effect::Halt`] are gone.
    Halted {
        number: u64,
    },
    /// The stream has ended; perhaps only with the process at its other end.
    Lost,
    /// Nothing has come on the stream for a while, or this process stood still:
    /// others have our actors soon, or have them.
    Silent,
    /// A deadline may have passed.
    Woken,
}

#[derive(Debug, Clone)]
pub enum Effect {
    /// With the number of the round.
    Acknowledge(Phase, u64),
    /// What is known about where actors are.
    Route(Known),
    /// Actors are elsewhere, and what belongs to them with them.
    Lose(Which),
    /// Actors have to go; [`Event::Halted`] follows.
    Halt { number: u64, which: Which },
    /// The tables are in force everywhere.
    Settled(Arc<Tables>),
    /// The stream makes no sense any more. [`Event::Lost`] is not to follow.
    Close(String),
}

/// What is done about the orders of one stream after the other.
pub trait Follow: Send {
    type Order: Send;

    fn handle(&mut self, now: Instant, event: Event<Self::Order>, effects: &mut Vec<Effect>);

    /// When [`Event::Woken`] is due.
    fn next_deadline(&self) -> Option<Instant>;
}

/// Follows the service that says where actors are, for as long as actors are called.
pub async fn follow(actors: Actors, options: Options, stopping: CancellationToken) {
    let mut changing = Changing {
        choice: Choice::new(
            Instant::now(),
            !options.addresses.is_empty(),
            options.announced.is_some(),
            options.startup,
        ),
        announced: options.announced.clone(),
        is_logged: false,
    };
    let following = async {
        loop {
            let authority = changing.choice.now().clone();
            match &authority {
                Authority::Nobody { is_certain } => {
                    if *is_certain {
                        tracing::info!(target: SCOPE, "Actor runtime disabled: no placement address was given, and no scheduler serves placement");
                        options.ready.ready();
                    }
                    idle(&actors, &options, false, changing.next()).await;
                }
                Authority::Awaited => idle(&actors, &options, true, changing.next()).await,
                Authority::Service => {
                    let service = service::Service::new(&actors, &options);
                    Client::run(service, &actors, &options, changing.next()).await;
                }
                Authority::Scheduler(address) => {
                    tracing::info!(target: SCOPE, "the scheduler at {address} leads placement");
                    let leader = leader::Leader::new(address, &actors, &options);
                    Client::run(leader, &actors, &options, changing.next()).await;
                }
            }
            give_up(&actors, changing.choice.now());
        }
    };
    stopping.run_until_cancelled(following).await;
}

/// Waits for another authority, and has schedulers know what is hosted here: they
/// serve placement once they have seen who wants it. Where nothing is hosted no
/// tables have to be there if actors are on.
async fn idle(actors: &Actors, options: &Options, is_on: bool, next: impl Future<Output = ()>) {
    let mut hosted = actors.hosting().hosted();
    let mut has_store = options.has_store.clone();
    let mut initialized = actors.initialized();
    let advertising = async {
        loop {
            hosted.mark_unchanged();
            let is_initialized = *initialized.borrow_and_update();
            if actors.advertise().is_empty() && is_on && is_initialized {
                options.ready.ready();
            }
            // The senders may be gone at the end of the process.
            tokio::select! {
                Ok(()) = hosted.changed() => {}
                Ok(()) = has_store.changed() => {}
                Ok(()) = initialized.changed() => {}
                else => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = next => {}
        () = advertising => {}
    }
}

/// Has all actors go: they are nowhere until the next authority says where.
fn give_up(actors: &Actors, next: &Authority) {
    let is_off = matches!(next, Authority::Nobody { .. });
    let fence = actors.set_routing(match is_off {
        true => Known::Disabled,
        false => Known::Nothing,
    });
    if is_off {
        actors.lose(&Which::All);
    }
    let gone = actors.halt(fence, Which::Lost);
    actors.spawn("actors that go", gone);
}

/// Who the authority is, and every change.
struct Changing {
    choice: Choice,
    announced: Option<watch::Receiver<Announced>>,
    /// That the leader is waited for.
    is_logged: bool,
}

impl Changing {
    /// Waits until it is another one.
    async fn next(&mut self) {
        let before = self.choice.now().clone();
        loop {
            if let Some(announced) = &mut self.announced {
                let said = announced.borrow_and_update().clone();
                self.choice.update(Instant::now(), &said);
                self.log(&said);
            }
            if *self.choice.now() != before {
                return;
            }
            let deadline = self.choice.next_deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                if let Some(announced) = &mut self.announced
                    && announced.changed().await.is_ok()
                {
                    return;
                }
                // Nobody will say anything any more.
                std::future::pending().await
            };
            tokio::select! {
                () = changed => {}
                () = due => self.choice.wake(Instant::now()),
            }
        }
    }

    fn log(&mut self, said: &Announced) {
        let waits = said.is_reachable && *self.choice.now() == Authority::Awaited;
        if waits && !self.is_logged {
            tracing::info!(target: SCOPE, "Scheduler reachable but no placement leader advertised: waiting for one");
        }
        self.is_logged = waits;
    }
}
