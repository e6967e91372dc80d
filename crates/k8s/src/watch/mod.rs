//! A collection kept in memory, and a stream of its changes.
//!
//! The API server's contract is list, then watch from the list's version:
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>. Servers that give
//! no versions, or that close a watch at once, are listed again; lists and events of watches are both compared with
//! what is known, so that each change is reported once, whichever of them showed it first.

mod decode;
mod store;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{Request, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use outrider_kit::random;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::objects::{Collection, encode};
use decode::Event;
pub use store::{Change, Key, Object, State, Store};

/// A server ends a watch after this many seconds; the next one starts where it ended.
const WATCH_SECONDS: u64 = 290;
/// A watch without an event for this long is dead: the server should have ended it.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// A watch that ends sooner and without an event may hide changes: list again.
const SHORT: Duration = Duration::from_secs(1);
/// Lists and watches do not follow each other faster than this, and with every round that shows nothing new they slow
/// down up to the last.
const FIRST_PACE: Duration = Duration::from_millis(100);
const LAST_PACE: Duration = Duration::from_secs(3);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
const PAGE: usize = 500;

/// What to keep.
#[derive(Clone)]
pub struct Interest {
    pub collection: Collection,
    /// Nothing for all namespaces.
    pub namespace: Option<String>,
    pub labels: Option<String>,
    /// Asks for metadata only; servers may send whole objects all the same.
    pub metadata_only: bool,
    /// Reduces an object to what is needed, or drops it.
    pub keep: fn(Value) -> Option<Value>,
}

impl Interest {
    /// Whole objects of a collection.
    pub fn whole(collection: Collection, namespace: Option<String>) -> Self {
        Self {
            collection,
            namespace,
            labels: None,
            metadata_only: false,
            keep: Some,
        }
    }

    fn request(&self, query: &str, accept_list: bool) -> Result<Request<Body>, Error> {
        let labels = self
            .labels
            .as_deref()
            .map(|labels| format!("&labelSelector={}", encode(labels)));
        let path = self.collection.path(self.namespace.as_deref())?;
        let kind = if accept_list {
            "PartialObjectMetadataList"
        } else {
            "PartialObjectMetadata"
        };
        let accept = match self.metadata_only {
            true => format!("application/json;as={kind};g=meta.k8s.io;v=v1,application/json"),
            false => "application/json".to_owned(),
        };
        let request = Request::builder()
            .uri(format!("{path}?{query}{}", labels.unwrap_or_default()))
            .header(header::ACCEPT, accept)
            // Watches are decoded piece by piece.
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::empty());
        Ok(request.map_err(kube::Error::HttpError)?)
    }
}

/// Keeps a store up to date for as long as it runs.
#[must_use = "the store stays empty until this runs"]
pub struct Driver {
    client: Client,
    interest: Interest,
    store: Store,
}

/// A store, and what fills it.
pub fn new(client: Client, interest: Interest) -> (Store, Driver) {
    let store = Store::default();
    (
        store.clone(),
        Driver {
            client,
            interest,
            store,
        },
    )
}

/// How a watch ended.
enum End {
    /// It can be continued from this version.
    At(String),
    /// A new list is needed.
    Unknown,
}

impl Driver {
    /// Runs until `stopping` is cancelled.
    pub async fn run(self, stopping: CancellationToken) {
        let plural = self.interest.collection.plural;
        let mut backoff = FIRST_BACKOFF;
        loop {
            let failed = tokio::select! {
                () = stopping.cancelled() => return,
                failed = self.follow(&mut backoff) => failed,
            };
            if failed.is_not_found() {
                tracing::debug!(target: "dapr.k8s", "the API server has no resource {plural}: its definition is not installed");
                self.store.absent();
            } else {
                tracing::warn!(target: "dapr.k8s", "cannot watch {plural}, trying again: {failed}");
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(jittered(backoff)) => {}
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    /// Lists and watches until something fails.
    async fn follow(&self, backoff: &mut Duration) -> Error {
        let mut version = None;
        let mut pace = FIRST_PACE;
        loop {
            let (started, changes) = (Instant::now(), self.store.changes());
            let end = match version.take() {
                Some(version) => self.watch(version).await,
                None => match self.list().await {
                    Ok(version) => {
                        *backoff = FIRST_BACKOFF;
                        self.watch(version).await
                    }
                    Err(error) => return error,
                },
            };
            match end {
                Ok(End::At(at)) => version = Some(at),
                Ok(End::Unknown) => {}
                Err(error) => return error,
            }
            let (took, changed) = (started.elapsed(), self.store.changes() != changes);
            pace = match changed || took >= LAST_PACE {
                true => FIRST_PACE,
                false => (pace * 2).min(LAST_PACE),
            };
            tokio::time::sleep(jittered(pace).saturating_sub(took)).await;
        }
    }

    /// Replaces what is known by a new list. Returns the version of the list, empty if it has none.
    async fn list(&self) -> Result<String, Error> {
        let mut objects = Vec::new();
        let mut query = format!("limit={PAGE}");
        loop {
            let response = self
                .client
                .send(self.interest.request(&query, true)?)
                .await?;
            let list = items(json_of(response).await?);
            objects.extend(list.items.into_iter().filter_map(|item| self.object(item)));
            if list.more.is_empty() {
                self.store.replace(objects);
                return Ok(list.version);
            }
            query = format!("limit={PAGE}&continue={}", encode(&list.more));
        }
    }

    async fn watch(&self, mut version: String) -> Result<End, Error> {
        let started = Instant::now();
        let mut query =
            format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}");
        if !version.is_empty() {
            query.push_str(&format!("&resourceVersion={}", encode(&version)));
        }
        let response = self
            .client
            .send(self.interest.request(&query, false)?)
            .await?;
        if !response.status().is_success() {
            let error = json_of(response).await.err();
            return match error {
                Some(error) if error.code() != Some(410) => Err(error),
                _ => Ok(End::Unknown),
            };
        }
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        let mut no_events = true;
        loop {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                // A dead connection; a new one continues from the same version.
                Err(_) | Ok(None) | Ok(Some(Err(_))) => break,
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            buffer.extend_from_slice(&data);
            for event in decode::take(&mut buffer).map_err(kube::Error::SerdeError)? {
                no_events = false;
                match event {
                    Event::Bookmark(at) => version = at,
                    Event::Error(410) => return Ok(End::Unknown),
                    Event::Error(code) => {
                        tracing::debug!(target: "dapr.k8s", "watch of {} ended with {code}", self.interest.collection.plural);
                        return Ok(End::Unknown);
                    }
                    Event::Changed(object) => {
                        version = version_of(&object).to_owned();
                        match (key_of(&object), self.object(object)) {
                            (_, Some(object)) => self.store.put(object),
                            // It has become something that is not kept.
                            (key, None) => self.store.remove(&key),
                        }
                    }
                    Event::Deleted(object) => {
                        version = version_of(&object).to_owned();
                        self.store.remove(&key_of(&object));
                    }
                }
            }
        }
        let may_hide_changes = no_events && started.elapsed() < SHORT;
        Ok(if version.is_empty() || may_hide_changes {
            End::Unknown
        } else {
            End::At(version)
        })
    }

    fn object(&self, json: Value) -> Option<Object> {
        let (namespace, name) = key_of(&json);
        let json = (self.interest.keep)(json)?;
        Some(Object {
            namespace,
            name,
            json,
        })
    }
}

/// A random time between half of `pause` and `pause`, so that watches that ended together do not restart together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + random::fraction() / 2.0)
}

fn key_of(object: &Value) -> Key {
    let text = |key: &str| {
        object["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}

fn version_of(object: &Value) -> &str {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
}

/// The content of a list.
pub(crate) struct List {
    pub items: Vec<Value>,
    version: String,
    /// Where the next page starts.
    more: String,
}

/// `items` may be missing or null.
pub(crate) fn items(mut list: Value) -> List {
    let items = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let text = |key: &str| {
        list["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    List {
        items,
        version: text("resourceVersion"),
        more: text("continue"),
    }
}

/// The body's JSON, or the error that the answer stands for.
async fn json_of(response: http::Response<Body>) -> Result<Value, Error> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body).map_err(kube::Error::SerdeError)?);
    }
    let parsed: Option<kube::core::Status> = serde_json::from_slice(&body).ok();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    let mut failure = parsed.unwrap_or_else(|| kube::core::Status::failure(&text, ""));
    failure.code = status.as_u16();
    Err(kube::Error::Api(Box::new(failure)).into())
}
