//! Reminders of actors.
//! <https://docs.dapr.io/reference/api/actors_api/#create-actor-reminder>

pub mod error;
pub mod grpc;
pub mod http;

use outrider_actors::reminders::{Reminder, Reminders, Request};
use outrider_actors::{Actor, names};

use crate::blocks::error::Result;

/// Operations on reminders.
#[derive(Clone)]
pub struct Api {
    pub reminders: Reminders,
}

impl Api {
    pub async fn register(&self, actor: &Actor, request: Request) -> Result<()> {
        super::check_actor(&self.reminders.actors, actor)?;
        names::check(&request.name).map_err(super::error::bad_request)?;
        let name = request.name.clone();
        let registered = self.reminders.register(actor, request).await;
        registered.map_err(|cause| error::create(&cause, &name))
    }

    pub async fn get(&self, actor: &Actor, name: &str) -> Result<Reminder> {
        super::check_actor(&self.reminders.actors, actor)?;
        names::check_segment(name).map_err(super::error::bad_request)?;
        let found = self.reminders.get(actor, name).await;
        found.map_err(|cause| error::get(&cause, name))
    }

    pub async fn delete(&self, actor: &Actor, name: &str) -> Result<()> {
        super::check_actor(&self.reminders.actors, actor)?;
        names::check_segment(name).map_err(super::error::bad_request)?;
        let deleted = self.reminders.delete(actor, name).await;
        deleted.map_err(|cause| error::delete(&cause))
    }

    pub async fn delete_all(&self, kind: &str, id: Option<&str>) -> Result<()> {
        self.check(kind, id)?;
        // An empty one would be all of the type.
        if id == Some("") {
            let why =
                "actor id cannot be empty: leave it out to delete the reminders of all actors";
            return Err(super::error::bad_request(why));
        }
        let deleted = self.reminders.delete_all(kind, id).await;
        deleted.map_err(|cause| error::delete(&cause))
    }

    pub async fn list(&self, kind: &str, id: Option<&str>) -> Result<Vec<Reminder>> {
        self.check(kind, id)?;
        let listed = self.reminders.list(kind, id).await;
        listed.map_err(|cause| error::list(&cause))
    }

    fn check(&self, kind: &str, id: Option<&str>) -> Result<()> {
        super::check(&self.reminders.actors, kind)?;
        id.map_or(Ok(()), super::check_id)
    }
}
