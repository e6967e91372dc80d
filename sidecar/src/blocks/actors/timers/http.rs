//! Timers over HTTP.

use http::{Response, StatusCode};
use outrider_actors::Actor;
use outrider_actors::timers::{Request as Wanted, Timer};
use outrider_net::body::Body;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use crate::blocks::actors::due;
use crate::blocks::error::Result;
use crate::blocks::http::{Request, json, no_content};
use crate::blocks::json::to_line;

/// One timer. What it does not have is left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    actor_type: &'a str,
    #[serde(rename = "actorID")]
    actor_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    due_time: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    period: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    ttl: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    callback: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct List<'a> {
    timers: Vec<Shown<'a>>,
}

fn shown<'a>(actor: &'a Actor, timer: &'a Timer, name: Option<&'a str>) -> Shown<'a> {
    let data = timer.data.as_deref();
    Shown {
        name,
        actor_type: &actor.kind,
        actor_id: &actor.id,
        due_time: &timer.due_time,
        period: timer.shown_period(),
        ttl: &timer.ttl,
        callback: &timer.callback,
        data: data.and_then(|data| serde_json::from_slice(data).ok()),
    }
}

pub async fn register(api: &Api, request: Request, actor: Actor, name: &str) -> Response<Body> {
    match try_register(api, request, actor, name).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}

async fn try_register(api: &Api, mut request: Request, actor: Actor, name: &str) -> Result<()> {
    let due = due::of(&mut request).await?;
    let request = Wanted {
        name: name.to_owned(),
        due_time: due.due_time,
        period: due.period,
        ttl: due.ttl,
        callback: due.callback,
        data: due.data,
    };
    api.register(actor, request).await
}

pub async fn get(api: &Api, actor: Actor, name: &str) -> Response<Body> {
    match api.get(&actor, name).await {
        Ok(timer) => json(StatusCode::OK, to_line(&shown(&actor, &timer, None))),
        Err(error) => error.into(),
    }
}

pub async fn list(api: &Api, actor: Actor) -> Response<Body> {
    match api.list(&actor).await {
        Ok(timers) => {
            let timers = timers.iter().map(|it| shown(&actor, it, Some(&it.name)));
            let list = List {
                timers: timers.collect(),
            };
            json(StatusCode::OK, to_line(&list))
        }
        Err(error) => error.into(),
    }
}

pub async fn delete(api: &Api, actor: Actor, name: &str) -> Response<Body> {
    match api.delete(actor, name).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}
