//! One ConfigMap, listed and then watched.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use http::Request;
use kube::Client;
use kube::core::{DynamicObject, ObjectList, WatchEvent};
use outrider_components::{Error, Kind};
use outrider_kit::kubernetes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::watch;

use super::{Entries, SCOPE};
use crate::client::failed;

/// A server ends a watch after this many seconds; one that is silent for longer
/// is dead.
const WATCH_SECONDS: u64 = 290;
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);
/// Pauses before the next list.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where the ConfigMap is.
pub struct Source {
    pub client: Client,
    pub namespace: String,
    pub name: String,
}

/// What a list has shown.
pub struct Listed {
    /// Of the list, from which a watch goes on.
    pub version: String,
    pub entries: Entries,
}

impl Source {
    fn request(&self, more: &str) -> Result<Request<Vec<u8>>, Error> {
        let path = kubernetes::path("/api/v1", "configmaps", Some(&self.namespace), None)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let selector = format!("metadata.name={}", self.name);
        let selector = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
        Request::get(format!("{path}?fieldSelector={selector}{more}"))
            .body(Vec::new())
            .map_err(kube::Error::HttpError)
            .map_err(failed)
    }

    pub async fn list(&self) -> Result<Listed, Error> {
        let listing = self.client.request(self.request("")?);
        let list: ObjectList<DynamicObject> = listing.await.map_err(failed)?;
        let version = list.metadata.resource_version.unwrap_or_default();
        // Servers may ignore the selector.
        let is_named = |map: &DynamicObject| map.metadata.name.as_deref() == Some(&self.name);
        let found = list.items.into_iter().find(is_named);
        let absent = || Entries {
            version: version.clone(),
            ..Entries::default()
        };
        Ok(Listed {
            entries: found.map_or_else(absent, Entries::of),
            version,
        })
    }

    /// Follows the ConfigMap for ever.
    pub async fn run(self, version: String, entries: watch::Sender<Arc<Entries>>) {
        let (mut version, mut pause) = (version, FIRST_PAUSE);
        loop {
            let ended = self.watch(&version, &mut pause, &entries).await;
            if let Err(error) = ended {
                let name = &self.name;
                tracing::warn!(target: SCOPE, "cannot watch ConfigMap {name}, trying again: {error}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.list().await {
                Ok(listed) => {
                    version = listed.version;
                    replace(&entries, listed.entries);
                }
                Err(error) => {
                    tracing::debug!(target: SCOPE, "cannot list ConfigMap {}: {error}", self.name);
                }
            }
        }
    }

    /// Watches until the server ends it.
    async fn watch(
        &self,
        version: &str,
        pause: &mut Duration,
        entries: &watch::Sender<Arc<Entries>>,
    ) -> Result<(), Error> {
        let from = utf8_percent_encode(version, NON_ALPHANUMERIC);
        let more = format!(
            "&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={from}"
        );
        let events = self
            .client
            .request_events::<DynamicObject>(self.request(&more)?);
        let mut events = pin!(events.await.map_err(failed)?);
        let silent = |_| Error::new(Kind::Unavailable, "the server is silent");
        loop {
            let event = tokio::time::timeout(SILENCE, events.try_next()).await;
            let Some(event) = event.map_err(silent)?.map_err(failed)? else {
                return Ok(());
            };
            *pause = FIRST_PAUSE;
            match event {
                WatchEvent::Added(map) | WatchEvent::Modified(map) if self.is_of(&map) => {
                    replace(entries, Entries::of(map));
                }
                WatchEvent::Deleted(map) if self.is_of(&map) => {
                    let version = map.metadata.resource_version.unwrap_or_default();
                    replace(
                        entries,
                        Entries {
                            version,
                            ..Entries::default()
                        },
                    );
                }
                WatchEvent::Error(status) => {
                    return Err(failed(kube::Error::Api(status)));
                }
                _ => {}
            }
        }
    }

    fn is_of(&self, map: &DynamicObject) -> bool {
        map.metadata.name.as_deref() == Some(&self.name)
    }
}

/// Only what differs is a change.
fn replace(entries: &watch::Sender<Arc<Entries>>, new: Entries) {
    entries.send_if_modified(|known| {
        let differs = known.items != new.items || known.version != new.version;
        if differs {
            *known = Arc::new(new);
        }
        differs
    });
}
