//! Configuration over HTTP. <https://docs.dapr.io/reference/api/configuration_api/>

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use outrider_components::configuration::{Item, Items, Request as Wanted};
use outrider_net::body::Body;
use serde::Serialize;

use super::deliver::ToApplication;
use super::{Api, error, subscriptions};
use crate::blocks::error::Result;
use crate::blocks::http::{self as api, Request, no_content};
use crate::blocks::json;

pub async fn get(api: &Api, request: Request, store: &str) -> Response<Body> {
    match api.get(store, &wanted(&request)).await {
        Err(error) => error.into(),
        Ok(items) if items.is_empty() => no_content(),
        Ok(items) => api::json(StatusCode::OK, json::to_line(&shown(&items))),
    }
}

pub async fn subscribe(api: &Api, request: Request, store: &str) -> Response<Body> {
    #[derive(Serialize)]
    struct Subscribed {
        id: String,
    }
    match begin(api, wanted(&request), store).await {
        Ok(id) => api::json(StatusCode::OK, json::to_line(&Subscribed { id })),
        Err(error) if error.code == "ERR_APP_CHANNEL_NIL" => with_line_feed(&error),
        Err(error) => error.into(),
    }
}

async fn begin(api: &Api, wanted: Wanted, name: &str) -> Result<String> {
    let store = api.store(name)?;
    let channel = api.channel.clone().ok_or_else(error::no_application)?;
    let id = subscriptions::id();
    let (place, over) = subscriptions::place(&id, name);
    let handler = Arc::new(ToApplication {
        channel,
        resiliency: api.resiliency.clone(),
        store: name.to_owned(),
        id: id.clone(),
        over,
    });
    let keys = wanted.keys.clone();
    let added = api.subscriptions.add(place, &store, wanted, handler).await;
    added.map_err(|cause| error::subscribe(&keys, name, cause))?;
    Ok(id)
}

pub async fn unsubscribe(api: &Api, store: &str, id: &str) -> Response<Body> {
    #[derive(Default, Serialize)]
    struct Unsubscribed {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        ok: bool,
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
    }
    let answer = |status, body: &Unsubscribed| api::json(status, json::to_line(body));
    match api.unsubscribe(store, id).await {
        Ok(()) => answer(
            StatusCode::OK,
            &Unsubscribed {
                ok: true,
                ..Unsubscribed::default()
            },
        ),
        Err(error) if error.code == "ERR_CONFIGURATION_UNSUBSCRIBE" => {
            let body = Unsubscribed {
                message: error.message.clone(),
                ..Unsubscribed::default()
            };
            let mut answer = answer(error.http, &body);
            answer.extensions_mut().extend(known(&error));
            answer
        }
        Err(error) => error.into(),
    }
}

/// What metrics know an error by.
fn known(error: &crate::blocks::error::Error) -> http::Extensions {
    let mut known = http::Extensions::new();
    if let Some(code) = error.known() {
        known.insert(code);
    }
    known
}

/// The one error of this API whose body ends in a line feed.
fn with_line_feed(error: &crate::blocks::error::Error) -> Response<Body> {
    let mut body = error.body().to_vec();
    body.push(b'\n');
    let mut answer = api::json(error.http, body);
    answer.extensions_mut().extend(known(error));
    answer
}

/// The keys and metadata of a query.
fn wanted(request: &Request) -> Wanted {
    let pairs = form_urlencoded::parse(request.query().as_bytes());
    let keys = pairs.filter(|(name, _)| name == "key");
    Wanted {
        keys: keys.map(|(_, key)| key.into_owned()).collect(),
        metadata: request.metadata(),
    }
}

/// An item as clients and applications get it: what is empty is left out.
#[derive(Serialize)]
pub struct Shown<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a Item> for Shown<'a> {
    fn from(item: &'a Item) -> Self {
        let metadata = item.metadata.iter();
        Self {
            value: &item.value,
            version: &item.version,
            metadata: metadata.map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        }
    }
}

pub fn shown(items: &Items) -> BTreeMap<&str, Shown<'_>> {
    let all = items.iter();
    all.map(|(key, item)| (key.as_str(), item.into())).collect()
}
