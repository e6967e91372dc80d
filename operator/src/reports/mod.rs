//! What sidecars report becomes Events, which `kubectl describe` shows.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrider_k8s::Client;
use outrider_k8s::objects::{self, Collection};
use outrider_k8s::watch::Object;
use outrider_proto::reports::v1::{FailureReport, reports_server};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::authorise::{self, Caller};
use crate::resources::{self, Resource};

/// The reasons that a sidecar may give.
const REASONS: [&str; 1] = ["InitFailed"];
/// Of the message of an Event, in bytes.
const LONGEST_MESSAGE: usize = 1024;
/// The same app gets one Event on a resource for a reason in this time.
const INTERVAL: Duration = Duration::from_secs(60);
/// How many Events of that time are remembered. Further ones are not written.
const REMEMBERED: usize = 4096;
/// Writes at the same time, and how long one may take with the wait for its turn.
const WRITES: usize = 4;
const WRITE_LIMIT: Duration = Duration::from_secs(5);

pub struct Reports {
    client: Client,
    components: Resource,
    /// Who writes the Events: the service and its pod.
    reporter: (&'static str, String),
    recent: Mutex<Recent>,
    writes: Semaphore,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    name: String,
    app_id: String,
    reason: &'static str,
}

/// When the last Events were written.
#[derive(Default)]
struct Recent(HashMap<Key, Instant>);

#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Granted,
    Repeated,
    Full,
}

impl Recent {
    fn admit(&mut self, key: Key, now: Instant) -> Admission {
        let is_recent = |last: &Instant| now.duration_since(*last) < INTERVAL;
        if self.0.get(&key).is_some_and(is_recent) {
            return Admission::Repeated;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, last| is_recent(last));
            if self.0.len() >= REMEMBERED {
                return Admission::Full;
            }
        }
        self.0.insert(key, now);
        Admission::Granted
    }
}

impl Reports {
    pub fn new(client: Client, components: Resource, reporter: (&'static str, String)) -> Self {
        Self {
            client,
            components,
            reporter,
            recent: Mutex::default(),
            writes: Semaphore::new(WRITES),
        }
    }

    /// The object of a report, and its reason. An object out of the caller's scope counts as missing.
    fn subject(
        &self,
        caller: &Caller,
        report: &FailureReport,
    ) -> Result<(Arc<Object>, &'static str), Status> {
        let Some(reason) = REASONS.into_iter().find(|it| *it == report.reason) else {
            return Err(Status::invalid_argument(format!(
                "the reason must be one of {REASONS:?}"
            )));
        };
        if report.kind != self.components.kind {
            return Err(Status::invalid_argument(format!(
                "the kind must be {}",
                self.components.kind
            )));
        }
        let found = self.components.store.get(&caller.namespace, &report.name);
        match found.filter(|object| resources::in_scope(object, &caller.app_id)) {
            Some(object) => Ok((object, reason)),
            None => Err(Status::not_found(
                "there is no such component that this app may use",
            )),
        }
    }

    fn admit(&self, key: Key) -> Admission {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.admit(key, Instant::now())
    }

    fn event(&self, about: &Object, reason: &str, message: &str) -> Value {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let (now, metadata) = (now.to_string(), &about.json["metadata"]);
        let (reporter, instance) = &self.reporter;
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": unique_name(&about.name), "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": self.components.api_version,
                "kind": self.components.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": reporter},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": reporter,
            "reportingInstance": instance,
        })
    }

    async fn write(&self, namespace: &str, event: &Value) -> Result<(), Status> {
        let collection = Collection::EVENTS
            .path(Some(namespace))
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let writing = async {
            let _turn = self.writes.acquire().await;
            objects::create(&self.client, &collection, event).await
        };
        let cause = match tokio::time::timeout(WRITE_LIMIT, writing).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {}s", WRITE_LIMIT.as_secs()),
        };
        tracing::warn!(target: "dapr.operator.reports", "an Event in namespace {namespace} could not be written: {cause}");
        Err(Status::unavailable("the event could not be written"))
    }
}

/// A name that no other Event has.
fn unique_name(about: &str) -> String {
    // The longest name of an object is 253 characters.
    let start = &about[..about.floor_char_boundary(200)];
    let start = start.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{start}.{}", uuid::Uuid::new_v4().simple())
}

/// One line of text that fits into an Event.
fn message(app_id: &str, text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LONGEST_MESSAGE)];
    let whole = format!("app {app_id}: {}", text.replace(char::is_control, " "));
    whole[..whole.floor_char_boundary(LONGEST_MESSAGE)].to_owned()
}

#[tonic::async_trait]
impl reports_server::Reports for Reports {
    async fn report_failure(
        &self,
        request: Request<FailureReport>,
    ) -> Result<Response<()>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        let report = request.into_inner();
        let (about, reason) = self.subject(&caller, &report)?;
        let key = Key {
            namespace: caller.namespace.clone(),
            name: about.name.clone(),
            app_id: caller.app_id.clone(),
            reason,
        };
        match self.admit(key) {
            Admission::Granted => {}
            Admission::Repeated => return Ok(Response::new(())),
            Admission::Full => {
                return Err(Status::resource_exhausted(
                    "too many reports: try again in a minute",
                ));
            }
        }
        let message = message(&caller.app_id, &report.message);
        let event = self.event(&about, reason, &message);
        self.write(&caller.namespace, &event).await?;
        Ok(Response::new(()))
    }
}
