//! Reminders over HTTP.

use http::{Response, StatusCode};
use outrider_actors::Actor;
use outrider_actors::reminders::{Reminder, Request as Wanted};
use outrider_net::body::Body;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use crate::blocks::actors::{any, due};
use crate::blocks::error::Result;
use crate::blocks::http::{Request, json, no_content};
use crate::blocks::json::to_line;

/// One reminder. Its keys stay in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(rename = "actorID")]
    actor_id: &'a str,
    actor_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a str>,
}

/// The same in a list.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(flatten)]
    reminder: Shown<'a>,
}

#[derive(Serialize)]
struct List<'a> {
    reminders: Vec<Named<'a>>,
}

fn shown(reminder: &Reminder) -> Shown<'_> {
    Shown {
        actor_id: &reminder.actor.id,
        actor_type: &reminder.actor.kind,
        data: reminder.data.as_ref().and_then(any::to_raw),
        due_time: reminder.due_time.as_deref(),
        period: reminder.period.as_deref(),
        ttl: reminder.ttl.as_deref(),
    }
}

pub async fn register(api: &Api, request: Request, actor: Actor, name: &str) -> Response<Body> {
    match try_register(api, request, &actor, name).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}

async fn try_register(api: &Api, mut request: Request, actor: &Actor, name: &str) -> Result<()> {
    let due = due::of(&mut request).await?;
    let request = Wanted {
        name: name.to_owned(),
        due_time: due.due_time,
        period: due.period,
        ttl: due.ttl,
        data: due.data.map(outrider_actors::any::of),
        overwrite: due.overwrite.unwrap_or(true),
        failure_policy: due.failure_policy,
    };
    api.register(actor, request).await
}

pub async fn get(api: &Api, actor: Actor, name: &str) -> Response<Body> {
    match api.get(&actor, name).await {
        Ok(reminder) => json(StatusCode::OK, to_line(&shown(&reminder))),
        Err(error) => error.into(),
    }
}

pub async fn list(api: &Api, actor: Actor) -> Response<Body> {
    match api.list(&actor.kind, Some(&actor.id)).await {
        Ok(reminders) => {
            let named = reminders.iter().map(|it| Named {
                name: &it.name,
                reminder: shown(it),
            });
            let list = List {
                reminders: named.collect(),
            };
            json(StatusCode::OK, to_line(&list))
        }
        Err(error) => error.into(),
    }
}

pub async fn delete(api: &Api, actor: Actor, name: &str) -> Response<Body> {
    match api.delete(&actor, name).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}
