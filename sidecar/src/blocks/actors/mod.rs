//! Actors: calls of their methods, their state, and what they want to be called for
//! later.
//! <https://docs.dapr.io/reference/api/actors_api/>

pub mod any;
mod due;
pub mod error;
pub mod grpc;
pub mod http;
mod method;
pub mod ops;
pub mod reminders;
pub mod state;
pub mod timers;

use std::sync::Arc;
use std::time::Duration;

use outrider_actors::waiting::Waiting;
use outrider_actors::{Actor, Actors, names};
use outrider_call::channel::Channel;
use outrider_call::headers::{Caller, Parties};
use tokio_util::sync::CancellationToken;

use crate::blocks::descriptor::{self, Method, Route, V1, V1_ALPHA1};
use crate::blocks::error::Result;
use state::ActorState;

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "InvokeActor",
            verbs: descriptor::GET_TO_DELETE,
            versions: &[V1],
            path: "actors/{}/{}/method/{*}",
            group: "actors",
            answer: |apis, request, names| Box::pin(http::invoke(&apis.actors, request, names)),
        },
        Route {
            name: "GetActorState",
            verbs: descriptor::GET,
            versions: &[V1],
            path: "actors/{}/{}/state/{}",
            group: "actors",
            answer: |apis, _, names| Box::pin(http::get_state(&apis.actors, names)),
        },
        Route {
            name: "ExecuteActorStateTransaction",
            verbs: descriptor::POST_OR_PUT,
            versions: &[V1],
            path: "actors/{}/{}/state",
            group: "actors",
            answer: |apis, request, names| Box::pin(http::transact(&apis.actors, request, names)),
        },
        Route {
            name: "RegisterActorReminder",
            verbs: descriptor::POST_OR_PUT,
            versions: &[V1],
            path: "actors/{}/{}/reminders/{}",
            group: "actors",
            answer: |apis, request, names| {
                Box::pin(reminders::http::register(
                    &apis.reminders,
                    request,
                    actor(names),
                    names.third,
                ))
            },
        },
        Route {
            name: "GetActorReminder",
            verbs: descriptor::GET,
            versions: &[V1],
            path: "actors/{}/{}/reminders/{}",
            group: "actors",
            answer: |apis, _, names| {
                Box::pin(reminders::http::get(
                    &apis.reminders,
                    actor(names),
                    names.third,
                ))
            },
        },
        Route {
            name: "UnregisterActorReminder",
            verbs: descriptor::DELETE,
            versions: &[V1],
            path: "actors/{}/{}/reminders/{}",
            group: "actors",
            answer: |apis, _, names| {
                Box::pin(reminders::http::delete(
                    &apis.reminders,
                    actor(names),
                    names.third,
                ))
            },
        },
        Route {
            name: "ListActorReminders",
            verbs: descriptor::GET,
            versions: &[V1],
            path: "actors/{}/{}/reminders",
            group: "actors",
            answer: |apis, _, names| Box::pin(reminders::http::list(&apis.reminders, actor(names))),
        },
        Route {
            name: "RegisterActorTimer",
            verbs: descriptor::POST_OR_PUT,
            versions: &[V1],
            path: "actors/{}/{}/timers/{}",
            group: "actors",
            answer: |apis, request, names| {
                Box::pin(timers::http::register(
                    &apis.timers,
                    request,
                    actor(names),
                    names.third,
                ))
            },
        },
        Route {
            name: "GetActorTimer",
            verbs: descriptor::GET,
            versions: &[V1],
            path: "actors/{}/{}/timers/{}",
            group: "actors",
            answer: |apis, _, names| {
                Box::pin(timers::http::get(&apis.timers, actor(names), names.third))
            },
        },
        Route {
            name: "UnregisterActorTimer",
            verbs: descriptor::DELETE,
            versions: &[V1],
            path: "actors/{}/{}/timers/{}",
            group: "actors",
            answer: |apis, _, names| {
                Box::pin(timers::http::delete(
                    &apis.timers,
                    actor(names),
                    names.third,
                ))
            },
        },
        Route {
            name: "ListActorTimers",
            verbs: descriptor::GET,
            versions: &[V1],
            path: "actors/{}/{}/timers",
            group: "actors",
            answer: |apis, _, names| Box::pin(timers::http::list(&apis.timers, actor(names))),
        },
    ],
    methods: &[
        Method::new("InvokeActor", V1, "actors"),
        Method::new("GetActorState", V1, "actors"),
        Method::new("ExecuteActorStateTransaction", V1, "actors"),
        Method::new("SubscribeActorEventsAlpha1", V1_ALPHA1, "actors"),
        Method::new("RegisterActorTimer", V1, "actors"),
        Method::new("UnregisterActorTimer", V1, "actors"),
        Method::new("GetActorTimer", V1, "actors"),
        Method::new("ListActorTimers", V1, "actors"),
        Method::new("RegisterActorReminder", V1, "actors"),
        Method::new("UnregisterActorReminder", V1, "actors"),
        Method::new("UnregisterActorRemindersByType", V1, "actors"),
        Method::new("GetActorReminder", V1, "actors"),
        Method::new("ListActorReminders", V1, "actors"),
    ],
    errors: &[("ERR_ACTOR_", "actor")],
};

/// The actor that a path names.
fn actor(names: descriptor::Names<'_>) -> Actor {
    Actor::new(names.first, names.second)
}

/// Operations on actors.
pub struct Api {
    pub actors: Actors,
    pub waiting: Waiting,
    pub app_id: String,
    pub caller: Caller,
    pub channel: Option<Arc<Channel>>,
    pub state: ActorState,
    /// Bytes that an answer may have.
    pub limit: Option<usize>,
    /// Longest time of a round of placement.
    pub dissemination: Duration,
    pub stopping: CancellationToken,
}

impl Api {
    /// Who calls, as the application reads it.
    fn parties(&self) -> Parties {
        Parties {
            callee: None,
            ..self.caller.calling("")
        }
    }
}

/// Types that belong to the workflow runtime begin with it.
const RESERVED: &str = "dapr.internal.";

/// Refuses what no client may do with actors of a type.
pub fn check(actors: &Actors, kind: &str) -> Result<()> {
    if !actors.status().enabled {
        return Err(error::no_placement());
    }
    check_reserved(kind)?;
    names::check_segment(kind)
        .map_err(|why| error::bad_request(format!("invalid actorType: {why}")))
}

/// The same for an actor. Its id may have any character.
fn check_actor(actors: &Actors, actor: &Actor) -> Result<()> {
    check(actors, &actor.kind)?;
    check_id(&actor.id)
}

fn check_id(id: &str) -> Result<()> {
    names::check_segment(id).map_err(|why| error::bad_request(format!("invalid actorId: {why}")))
}

fn check_reserved(kind: &str) -> Result<()> {
    match kind.starts_with(RESERVED) || kind == RESERVED.trim_end_matches('.') {
        true => Err(error::reserved(kind)),
        false => Ok(()),
    }
}
