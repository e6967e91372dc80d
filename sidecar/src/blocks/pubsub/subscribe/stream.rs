//! Subscriptions of clients, over a gRPC stream.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/subscription-methods/#streaming-subscriptions>

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use outrider_components::Pairs;
use outrider_crds::subscription::{Routes, Spec};
use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Asked;
pub use outrider_proto::runtime::v1::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Content;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use super::inlet::{Incoming, Outcome};
use super::{Source, Subscriber, Subscription, deliver};
use crate::blocks::pubsub::{Api, error};

const SCOPE: &str = "dapr.runtime.pubsub.streamer";
/// Messages that wait for the client to read them.
const QUEUE: usize = 16;
/// The path of every event.
const PATH: &str = "/";

type Requests = Streaming<wire::SubscribeTopicEventsRequestAlpha1>;
pub type Sent = Result<wire::SubscribeTopicEventsResponseAlpha1, Status>;
pub type Responses = tonic::codegen::BoxStream<wire::SubscribeTopicEventsResponseAlpha1>;

/// The way to one client.
pub struct Outlet {
    events: mpsc::Sender<Sent>,
    waiting: Mutex<Answers>,
    /// Cancelled when the client is gone.
    gone: CancellationToken,
    /// Notified when no delivery waits any more.
    idle: Notify,
}

/// Who waits for the client's word, by the events' ids. Two events may have
/// the same id.
type Answers = HashMap<String, VecDeque<oneshot::Sender<i32>>>;

impl Outlet {
    pub fn new(events: mpsc::Sender<Sent>) -> Self {
        Self {
            events,
            waiting: Mutex::default(),
            gone: CancellationToken::new(),
            idle: Notify::new(),
        }
    }

    /// Sends an event and waits for the client's word on it.
    pub async fn deliver(&self, incoming: &Incoming, stop: &CancellationToken) -> Outcome {
        let closed = || Outcome::failed("stream closed");
        if stop.is_cancelled() || self.gone.is_cancelled() {
            return closed();
        }
        let event = deliver::topic_event(incoming, PATH);
        let id = event.id.clone();
        // Dropped after the receiver, which a policy may give up on.
        let _waiting = Waiting {
            outlet: self,
            id: &id,
        };
        let (answer, answered) = oneshot::channel();
        self.waiting()
            .entry(id.clone())
            .or_default()
            .push_back(answer);
        if self
            .events
            .send(Ok(response(Content::EventMessage(event))))
            .await
            .is_err()
        {
            return closed();
        }
        tokio::select! {
            status = answered => match status {
                Ok(status) => deliver::of_status(status, &id),
                Err(_) => closed(),
            },
            () = self.gone.cancelled() => closed(),
        }
    }

    pub fn answer(&self, processed: wire::SubscribeTopicEventsRequestProcessedAlpha1) {
        let status = processed.status.unwrap_or_default().status;
        let mut waiting = self.waiting();
        let first = waiting.get_mut(&processed.id).and_then(|all| {
            // A delivery that was given up takes no answer from another one.
            all.retain(|answer| !answer.is_closed());
            all.pop_front()
        });
        match first {
            // The delivery may have been given up meanwhile.
            Some(first) => drop(first.send(status)),
            None => {
                tracing::error!(target: SCOPE, "no client stream expecting publish response for id {}", processed.id);
            }
        }
    }

    /// Whether no delivery waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.waiting().is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, Answers> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A delivery that waits for the client's word; gone, it leaves nothing behind.
struct Waiting<'a> {
    outlet: &'a Outlet,
    id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.outlet.waiting();
        if let Some(all) = waiting.get_mut(self.id) {
            all.retain(|answer| !answer.is_closed());
            if all.is_empty() {
                waiting.remove(self.id);
            }
        }
        if waiting.is_empty() {
            self.outlet.idle.notify_one();
        }
    }
}

fn response(content: Content) -> wire::SubscribeTopicEventsResponseAlpha1 {
    wire::SubscribeTopicEventsResponseAlpha1 {
        subscribe_topic_events_response_type: Some(content),
    }
}

/// Subscribes a client until it or the sidecar ends the stream.
pub async fn subscribe(api: &Api, mut requests: Requests) -> Result<Response<Responses>, Status> {
    let ending = api.subscriber.ending();
    let first = tokio::select! {
        () = ending.cancelled() => return Err(Status::unknown("stream closed")),
        first = requests.message() => first?,
    };
    let asked = first.and_then(|first| first.subscribe_topic_events_request_type);
    let Some(Asked::InitialRequest(initial)) = asked else {
        return Err(Status::unknown("initial request is required"));
    };
    let subscription = checked(api, initial)?;
    let (pubsub, topic) = (&subscription.spec.pubsubname, &subscription.spec.topic);
    let (pubsub, topic) = (pubsub.clone(), topic.clone());
    let (events, responses) = mpsc::channel(QUEUE);
    // There is room for the first.
    let _ = events.try_send(Ok(response(Content::InitialResponse(Default::default()))));
    let outlet = Arc::new(Outlet::new(events));
    let number = api
        .subscriber
        .add(Arc::new(subscription), outlet.clone())
        .await
        .map_err(|cause| {
            Status::unknown(format!(
                "failed to create subscription for {pubsub}: {cause}"
            ))
        })?;
    tracing::info!(target: SCOPE, "Subscribing to pubsub '{pubsub}' topic '{topic}' ConnectionID {number}");
    let subscriber = api.subscriber.clone();
    let reading = read(subscriber.clone(), requests, outlet, number);
    subscriber
        .0
        .tasks
        .spawn("streaming subscription", async move {
            reading.await;
            tracing::info!(target: SCOPE, "Unsubscribed from pubsub '{pubsub}' topic '{topic}'");
        });
    Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
}

fn checked(
    api: &Api,
    initial: wire::SubscribeTopicEventsRequestInitialAlpha1,
) -> Result<Subscription, Status> {
    if initial.pubsub_name.is_empty() {
        return Err(Status::unknown("pubsubName is required"));
    }
    if initial.topic.is_empty() {
        return Err(Status::unknown("topic is required"));
    }
    if api.brokers.get(&initial.pubsub_name).is_none() {
        return Err(error::not_found(&initial.pubsub_name, &Pairs::new()).status());
    }
    let spec = Spec {
        pubsubname: initial.pubsub_name,
        topic: initial.topic,
        metadata: initial.metadata.into_iter().collect(),
        dead_letter_topic: initial.dead_letter_topic.unwrap_or_default(),
        routes: Routes {
            default: PATH.to_owned(),
            rules: Vec::new(),
        },
        ..Spec::default()
    };
    Subscription::new(Source::Streaming, spec).map_err(Status::unknown)
}

/// Takes the client's words until the stream ends.
async fn read(subscriber: Subscriber, mut requests: Requests, outlet: Arc<Outlet>, number: u64) {
    let ending = subscriber.ending();
    let mut draining = false;
    let last = loop {
        if draining && outlet.is_idle() {
            break Some(Status::unknown("stream closed"));
        }
        tokio::select! {
            () = ending.cancelled(), if !draining => draining = true,
            () = outlet.idle.notified(), if draining => {}
            () = outlet.events.closed() => break None,
            message = requests.message() => match message {
                Ok(Some(message)) => match message.subscribe_topic_events_request_type {
                    Some(Asked::EventProcessed(processed)) => outlet.answer(processed),
                    _ => break Some(Status::unknown("duplicate initial request received")),
                },
                Ok(None) => break None,
                Err(error) => {
                    tracing::debug!(target: SCOPE, "Error receiving message from client stream: {}", outrider_net::grpc::text(&error));
                    break None;
                }
            }
        }
    };
    outlet.gone.cancel();
    subscriber.remove(number);
    if let Some(status) = last {
        // A client that reads no more does not want to know.
        let _ = outlet.events.send(Err(status)).await;
    }
}
