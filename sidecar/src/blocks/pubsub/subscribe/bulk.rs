//! Several messages in one delivery.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/pubsub-bulk/>

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outrider_components::pubsub::{Feature, Handler, Message};
use outrider_components::{Error, Pairs};
use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::topic_event_bulk_request_entry::Event as Typed;
use outrider_resiliency::{Error as Cut, Policy};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Code;

use super::inlet::{Inlet, Outcome, PUBSUB_NAME, To};
use super::{deliver, rules};
use crate::blocks::invoke::ops::code_number;
use crate::blocks::json;
use crate::blocks::json::shape::Shape;
use crate::blocks::pubsub::envelope::{self, Event};
use outrider_call::channel::{Channel, Kind, grpc};
use outrider_call::metadata::{self, Name};
use outrider_metrics::component::Fate;
use outrider_trace as trace;

const SCOPE: &str = "dapr.runtime.processor.pubsub.subscription";
const TYPE: &str = "com.dapr.event.sent.bulk";
const MOST: usize = 100;
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A message that waits for its batch to be answered.
struct Waiting {
    message: Message,
    answer: oneshot::Sender<Result<(), Error>>,
}

struct Collector(mpsc::Sender<Waiting>);

#[async_trait]
impl Handler for Collector {
    async fn handle(&self, message: Message) -> Result<(), Error> {
        let closed = || Error::internal("the subscription has ended");
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { message, answer };
        self.0.send(waiting).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

/// Puts messages together and delivers them.
pub struct Batches {
    queue: mpsc::Receiver<Waiting>,
    most: usize,
    wait: Duration,
}

/// What takes the messages of a subscription, and with bulk delivery what has
/// to run beside it.
pub fn handler(inlet: &Inlet) -> (Arc<dyn Handler>, Option<Batches>) {
    let settings = &inlet.subscription.spec.bulk_subscribe;
    if !settings.enabled || matches!(inlet.to, To::Stream(_)) {
        return (Arc::new(inlet.clone()), None);
    }
    let positive = |n: i32| u32::try_from(n).ok().filter(|n| *n > 0);
    let most = positive(settings.max_messages_count).map_or(MOST, |n| n as usize);
    let wait = positive(settings.max_await_duration_ms)
        .map_or(LONGEST_WAIT, |ms| Duration::from_millis(ms.into()));
    let immediate = inlet
        .broker
        .instance
        .direct()
        .features()
        .contains(&Feature::BulkSubscribeImmediate);
    let (sender, queue) = mpsc::channel(most);
    let batches = Batches {
        queue,
        most,
        wait: if immediate { Duration::ZERO } else { wait },
    };
    (Arc::new(Collector(sender)), Some(batches))
}

impl Batches {
    /// Runs until the senders of messages are gone.
    pub async fn run(mut self, inlet: &Inlet) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = vec![first];
            let deadline = Instant::now() + self.wait;
            while batch.len() < self.most {
                tokio::select! {
                    biased;
                    next = self.queue.recv() => match next {
                        Some(next) => batch.push(next),
                        None => break,
                    },
                    () = tokio::time::sleep_until(deadline) => break,
                    () = inlet.stop.cancelled() => break,
                }
            }
            deliver_all(inlet, batch).await;
        }
    }
}

/// An entry of a batch.
struct Entry {
    id: String,
    /// None for messages without an envelope.
    event: Option<Event<'static>>,
    waiting: Waiting,
}

impl Entry {
    fn content_type(&self) -> String {
        let default = match self.event {
            Some(_) => envelope::CONTENT_TYPE,
            None => "application/octet-stream",
        };
        let given = self.waiting.message.content_type.as_deref();
        given
            .filter(|c| !c.is_empty())
            .unwrap_or(default)
            .to_owned()
    }
}

async fn deliver_all(inlet: &Inlet, batch: Vec<Waiting>) {
    let To::App(channel) = &inlet.to else { return };
    let mut fates = Vec::with_capacity(batch.len());
    let mut took = Duration::ZERO;
    let mut paths: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    for waiting in batch {
        match sort(inlet, waiting).await {
            Ok((path, entry)) => paths.entry(path).or_default().push(entry),
            Err(fate) => fates.push(fate),
        }
    }
    for (path, entries) in paths {
        let started = Instant::now();
        let outcomes = match inlet.policy() {
            None => {
                let all: Vec<&Entry> = entries.iter().collect();
                deliver_once(channel, inlet, path, &all).await
            }
            Some(policy) => Box::pin(guarded(&policy, channel, inlet, path, &entries)).await,
        };
        took += started.elapsed();
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            let Waiting { message, answer } = entry.waiting;
            let end = inlet.settle(&message, outcome).await;
            fates.push(end.fate);
            // The broker may have given up on the message.
            let _ = answer.send(end.result);
        }
    }
    let metrics = &inlet.broker.metrics;
    metrics.delivered_bulk(inlet.names().1, &fates, took);
}

async fn deliver_once(
    channel: &Channel,
    inlet: &Inlet,
    path: &str,
    entries: &[&Entry],
) -> Vec<Outcome> {
    let topic = inlet.names().1;
    let begin = |entry: &&Entry| deliver::begin(channel, topic, entry.event.as_ref()?);
    let spans: Vec<_> = match channel.tracer.is_on() {
        true => entries.iter().map(begin).collect(),
        false => Vec::new(),
    };
    let outcomes = deliver_batch(channel, inlet, path, entries).await;
    for (span, outcome) in spans.into_iter().zip(&outcomes) {
        if let (Some(mut span), Outcome::Failed(failed)) = (span, outcome)
            && let Some(recording) = span.recording()
        {
            recording.fail(failed);
        }
    }
    outcomes
}

async fn deliver_batch(
    channel: &Channel,
    inlet: &Inlet,
    path: &str,
    entries: &[&Entry],
) -> Vec<Outcome> {
    match &channel.kind {
        Kind::Http(_) => over_http(channel, inlet, path, entries).await,
        Kind::Grpc(client) if channel.healthy.is_healthy() => {
            over_grpc(channel, client, inlet, path, entries).await
        }
        Kind::Grpc(_) => all(entries, || Outcome::failed("app is not in a healthy state")),
    }
}

/// Delivers again only what failed.
async fn guarded(
    policy: &Policy,
    channel: &Channel,
    inlet: &Inlet,
    path: &str,
    entries: &[Entry],
) -> Vec<Outcome> {
    let untried = || Outcome::failed("");
    let outcomes: Mutex<Vec<Outcome>> = Mutex::new(entries.iter().map(|_| untried()).collect());
    let outcomes = || outcomes.lock().unwrap_or_else(|e| e.into_inner());
    let delivered = policy
        .run(|_| async {
            let left: Vec<usize> = (0..entries.len())
                .zip(outcomes().iter())
                .filter_map(|(index, outcome)| {
                    matches!(outcome, Outcome::Failed(_)).then_some(index)
                })
                .collect();
            let batch: Vec<&Entry> = left.iter().map(|index| &entries[*index]).collect();
            let new = deliver_once(channel, inlet, path, &batch).await;
            let mut outcomes = outcomes();
            let mut failure = None;
            for (index, outcome) in left.into_iter().zip(new) {
                if let Outcome::Failed(failed) = &outcome {
                    failure = failure.or_else(|| Some(failed.clone()));
                }
                outcomes[index] = outcome;
            }
            failure.map_or(Ok(()), Err)
        })
        .await;
    let mut outcomes = std::mem::take(&mut *outcomes());
    // What the policy cut off or refused has no outcome of its own.
    if let Err(error @ (Cut::TimedOut | Cut::Open | Cut::TooManyRequests)) = delivered {
        for outcome in &mut outcomes {
            if matches!(outcome, Outcome::Failed(_)) {
                *outcome = Outcome::failed(error.to_string());
            }
        }
    }
    outcomes
}

/// Finds the path of a message, or settles it where it has none.
async fn sort(inlet: &Inlet, waiting: Waiting) -> Result<(&str, Entry), Fate> {
    let (pubsub, topic) = inlet.names();
    let message = &waiting.message;
    let result = if inlet.subscription.raw {
        let raw = rules::Subject::Raw(&message.data);
        inlet.route(&message.topic, raw).map(|path| (path, None))
    } else {
        match Event::read(&message.data) {
            Ok(event) if inlet.has_expired(&event) => Ok((None, Some(event))),
            Ok(event) => inlet
                .route(&message.topic, rules::Subject::Event(&event))
                .map(|path| (path, Some(event))),
            Err(cause) => Err(cause),
        }
    };
    let end = match result {
        Ok((Some(path), event)) => {
            let id = uuid::Uuid::new_v4().to_string();
            return Ok((path, Entry { id, event, waiting }));
        }
        Ok((None, _)) => inlet.dropped(message, Fate::Drop).await,
        Err(cause) => {
            tracing::error!(target: SCOPE, "error with a message of a batch in pubsub {pubsub} and topic {topic}: {cause}");
            inlet.failed(message, cause).await
        }
    };
    let _ = waiting.answer.send(end.result);
    Err(end.fate)
}

fn all(entries: &[&Entry], outcome: impl Fn() -> Outcome) -> Vec<Outcome> {
    entries.iter().map(|_| outcome()).collect()
}

/// The body of a batch; the order of fields is the one on the wire.
#[derive(Serialize)]
struct Body<'a> {
    entries: Vec<BodyEntry<'a>>,
    id: String,
    metadata: BTreeMap<&'a str, &'a str>,
    pubsubname: &'a str,
    topic: &'a str,
    r#type: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyEntry<'a> {
    entry_id: &'a str,
    event: Box<RawValue>,
    metadata: Option<BTreeMap<&'a str, &'a str>>,
    content_type: String,
}

async fn over_http(
    channel: &Channel,
    inlet: &Inlet,
    path: &str,
    entries: &[&Entry],
) -> Vec<Outcome> {
    let (pubsub, topic) = inlet.names();
    let body = Body {
        entries: entries.iter().copied().filter_map(body_entry).collect(),
        id: uuid::Uuid::new_v4().to_string(),
        metadata: BTreeMap::from([(PUBSUB_NAME, pubsub)]),
        pubsubname: pubsub,
        topic,
        r#type: TYPE,
    };
    let pubsub = metadata::value(pubsub);
    let name = Name::from_static(PUBSUB_NAME);
    let headers = Vec::from_iter(pubsub.map(|pubsub| (name, pubsub)));
    let data = Bytes::from(json::to_vec(&body));
    let answered = deliver::send(
        channel,
        deliver::post(path, headers, "application/json", data),
    )
    .await;
    let failed = |cause: String| all(entries, || Outcome::failed(cause.clone()));
    match answered {
        Ok((200..300, body)) => match statuses(&body) {
            Ok(statuses) => entries
                .iter()
                .map(|e| of_answer(&statuses, &e.id))
                .collect(),
            Err(cause) => failed(format!(
                "failed unmarshalling app response for bulk subscribe: {cause}"
            )),
        },
        Ok((404, _)) => {
            tracing::error!(target: SCOPE, "Non-retriable error returned from app while processing bulk pub/sub event. status code returned: 404");
            all(entries, || Outcome::Ignored)
        }
        Ok((status, body)) => {
            let body = String::from_utf8_lossy(&body);
            let cause = format!(
                "retriable error returned from app while processing bulk pub/sub event, topic: {topic}, body: {body}. status code returned: {status}"
            );
            tracing::warn!(target: SCOPE, "{cause}");
            all(entries, || Outcome::refused(status, cause.clone()))
        }
        Err(cause) => failed(format!(
            "error from app channel while sending pub/sub event to app: {cause}"
        )),
    }
}

fn body_entry(entry: &Entry) -> Option<BodyEntry<'_>> {
    let message = &entry.waiting.message;
    let event = match &entry.event {
        // It was read before, so it is JSON.
        Some(_) => serde_json::from_slice(&message.data).ok()?,
        None => serde_json::value::to_raw_value(&STANDARD.encode(&message.data)).ok()?,
    };
    let metadata = &message.metadata;
    Some(BodyEntry {
        entry_id: &entry.id,
        event,
        metadata: (!metadata.is_empty()).then(|| {
            metadata
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect()
        }),
        content_type: entry.content_type(),
    })
}

/// Status by entry; keys match in any case.
pub(crate) fn statuses(body: &[u8]) -> Result<HashMap<String, String>, String> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|e| json::decode_error(&e, body, &Shape::Any))?;
    let text = |one: &Value, name: &str| {
        let object = one.as_object()?;
        let (_, value) = object
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::to_owned)
    };
    let object = answer.as_object().ok_or("the answer is no object")?;
    let listed = object
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case("statuses"))
        .and_then(|(_, value)| value.as_array());
    let statuses = listed.into_iter().flatten().filter_map(|one| {
        Some((
            text(one, "entryId")?,
            text(one, "status").unwrap_or_default(),
        ))
    });
    Ok(statuses.collect())
}

fn of_answer(statuses: &HashMap<String, String>, id: &str) -> Outcome {
    match statuses.get(id).map(String::as_str) {
        Some("SUCCESS") => Outcome::Done,
        Some("DROP") => {
            tracing::warn!(target: SCOPE, "DROP status returned from app while processing pub/sub event {id}");
            Outcome::Dropped
        }
        Some("RETRY" | "") => Outcome::failed(format!(
            "RETRY required while processing bulk subscribe event for entry id: {id}"
        )),
        Some(other) => Outcome::failed(format!(
            "unknown status returned from app while processing bulk subscribe event {id}: {other}"
        )),
        None => Outcome::failed(format!(
            "response not received, RETRY required while processing bulk subscribe event for entry id: {id}"
        )),
    }
}

async fn over_grpc(
    channel: &Channel,
    client: &grpc::Client,
    inlet: &Inlet,
    path: &str,
    entries: &[&Entry],
) -> Vec<Outcome> {
    let (pubsub, topic) = inlet.names();
    let metadata = Pairs::from([(PUBSUB_NAME.to_owned(), pubsub.to_owned())]);
    let headers = deliver::grpc_metadata(&metadata, &trace::Parent::default());
    let request = wire::TopicEventBulkRequest {
        id: uuid::Uuid::new_v4().to_string(),
        entries: entries.iter().copied().map(wire_entry).collect(),
        metadata,
        topic: topic.to_owned(),
        pubsub_name: pubsub.to_owned(),
        r#type: TYPE.to_owned(),
        path: path.to_owned(),
    };
    let call = async |path| {
        let permit = channel.permit().await;
        let headers = headers.clone();
        client
            .unary::<_, wire::TopicEventBulkResponse>(permit, path, &request, headers)
            .await
    };
    let mut answered = call("/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent").await;
    let unimplemented = |code: Code| code == Code::Unimplemented;
    if answered.as_ref().is_err_and(|s| unimplemented(s.code())) {
        answered = call("/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1").await;
    }
    match answered {
        Ok((answer, _, _)) => {
            let statuses: HashMap<String, i32> = answer
                .statuses
                .into_iter()
                .map(|s| (s.entry_id, s.status))
                .collect();
            let outcome = |entry: &&Entry| match statuses.get(&entry.id) {
                Some(status) => deliver::of_status(*status, &entry.id),
                None => of_answer(&HashMap::new(), &entry.id),
            };
            entries.iter().map(outcome).collect()
        }
        Err(status) if unimplemented(status.code()) => {
            let cause = outrider_net::grpc::text(&status);
            tracing::warn!(target: SCOPE, "non-retriable error returned from app while processing bulk pub/sub event: {cause}");
            all(entries, || Outcome::Ignored)
        }
        Err(status) => {
            let cause = outrider_net::grpc::text(&status);
            let code = code_number(status.code());
            let cause =
                format!("error returned from app while processing bulk pub/sub event: {cause}");
            all(entries, || Outcome::refused(code, cause.clone()))
        }
    }
}

fn wire_entry(entry: &Entry) -> wire::TopicEventBulkRequestEntry {
    let message = &entry.waiting.message;
    let event = match &entry.event {
        None => Typed::Bytes(message.data.clone()),
        Some(event) => {
            let text = |name: &str| event.text(name).unwrap_or_default().into_owned();
            Typed::CloudEvent(wire::TopicEventCeRequest {
                id: text("id"),
                source: text("source"),
                r#type: text("type"),
                spec_version: text("specversion"),
                data_content_type: text("datacontenttype"),
                data: event.data(),
                extensions: Some(deliver::extensions(event)),
            })
        }
    };
    wire::TopicEventBulkRequestEntry {
        entry_id: entry.id.clone(),
        event: Some(event),
        content_type: entry.content_type(),
        metadata: message.metadata.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_per_entry() {
        let body = br#"{"Statuses":[{"entryID":"1","status":"SUCCESS"},{"entryId":"2","status":"DROP"},
            {"entryId":"3","status":"RETRY"},{"entryId":"4"},{"entryId":"5","status":"later"},{"entryId":"9","status":"DROP"}]}"#;
        let statuses = statuses(body).unwrap();
        let outcome = |id: &str| of_answer(&statuses, id);
        assert_eq!(
            (outcome("1"), outcome("2")),
            (Outcome::Done, Outcome::Dropped)
        );
        for id in ["3", "4", "5", "6"] {
            assert!(matches!(outcome(id), Outcome::Failed(_)), "{id}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_fails_the_whole_batch() {
        for body in ["", "OK", "[]"] {
            statuses(body.as_bytes()).unwrap_err();
        }
        assert!(statuses(b"{}").unwrap().is_empty());
    }
}
