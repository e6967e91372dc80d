//! Timers of actors.
//! <https://docs.dapr.io/reference/api/actors_api/#create-actor-timer>

pub mod error;
pub mod grpc;
pub mod http;

use std::sync::Arc;

use outrider_actors::timers::{Request, Timer, Timers};
use outrider_actors::{Actor, Actors, names};

use crate::blocks::error::Result;

/// Operations on timers.
#[derive(Clone)]
pub struct Api {
    pub actors: Actors,
    pub timers: Timers,
}

impl Api {
    pub async fn register(&self, actor: Actor, request: Request) -> Result<()> {
        self.check(&actor, &request.name)?;
        let registered = self.timers.register(actor, request).await;
        registered.map_err(|cause| error::create(&cause))
    }

    pub async fn delete(&self, actor: Actor, name: &str) -> Result<()> {
        self.check(&actor, name)?;
        let deleted = self.timers.delete(actor, name).await;
        deleted.map_err(|cause| error::other(&cause))
    }

    pub async fn get(&self, actor: &Actor, name: &str) -> Result<Arc<Timer>> {
        self.check(actor, name)?;
        let found = self.timers.get(actor, name).await;
        found.map_err(|cause| error::other(&cause))
    }

    pub async fn list(&self, actor: &Actor) -> Result<Vec<Arc<Timer>>> {
        super::check_actor(&self.actors, actor)?;
        let listed = self.timers.list(actor).await;
        listed.map_err(|cause| error::other(&cause))
    }

    fn check(&self, actor: &Actor, name: &str) -> Result<()> {
        super::check_actor(&self.actors, actor)?;
        names::check(name).map_err(super::error::bad_request)
    }
}
