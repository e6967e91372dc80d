//! A message from its arrival to its end.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::pubsub::{Handler, Message};
use outrider_components::{Error, Pairs};
use outrider_resiliency::{Block, Direction, Failure, Policy, Resiliency};
use tokio_util::sync::CancellationToken;

use super::rules::{self, Route};
use super::stream::Outlet;
use super::{Subscription, deliver};
use crate::blocks::pubsub::Broker;
use crate::blocks::pubsub::envelope::{self, Event};
use outrider_call::channel::Channel;
use outrider_metrics::component::Fate;

const SCOPE: &str = "dapr.runtime.processor.subscription";
/// Names the component in the metadata of what is delivered.
pub const PUBSUB_NAME: &str = "pubsubName";
const CONTENT_TYPE: &str = "content-type";
const DEAD_LETTER_LIMIT: Duration = Duration::from_secs(30);

/// Takes the messages of one subscription.
#[derive(Clone)]
pub struct Inlet {
    pub broker: Arc<Broker>,
    pub subscription: Arc<Subscription>,
    pub to: To,
    pub stop: CancellationToken,
    pub resiliency: Resiliency,
}

/// Who gets the messages.
#[derive(Clone)]
pub enum To {
    App(Arc<Channel>),
    Stream(Arc<Outlet>),
}

/// A message with its envelope.
#[derive(Debug)]
pub struct Incoming {
    pub pubsub: String,
    pub topic: String,
    pub event: Event<'static>,
    /// The event's text: as it came, where it came with an envelope.
    pub data: Bytes,
    /// What the publisher and the broker say about it.
    pub metadata: Pairs,
}

/// What became of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The application does not want it.
    Dropped,
    /// The application has nothing at the path.
    Refused,
    /// The same, where the message counts as taken.
    Ignored,
    /// It may go better another time.
    Failed(Failed),
}

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    cause: String,
    /// The application's HTTP status or gRPC code.
    code: Option<u16>,
}

impl Outcome {
    pub fn failed(cause: impl Into<String>) -> Self {
        Outcome::Failed(Failed {
            cause: cause.into(),
            code: None,
        })
    }

    pub fn refused(code: u16, cause: String) -> Self {
        let code = Some(code);
        Outcome::Failed(Failed { cause, code })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Failure for Failed {
    fn code(&self) -> Option<u16> {
        self.code
    }
}

impl Outcome {
    /// Applications that drop a message have dealt with it; clients of streams
    /// have not.
    pub fn fate(&self, to_app: bool) -> Fate {
        match self {
            Self::Done => Fate::Success,
            Self::Dropped if to_app => Fate::Unwanted,
            Self::Dropped | Self::Refused | Self::Ignored => Fate::Drop,
            Self::Failed(_) => Fate::Retry,
        }
    }
}

#[async_trait]
impl Handler for Inlet {
    async fn handle(&self, message: Message) -> Result<(), Error> {
        let (end, took) = self.process(&message).await;
        let topic = self.broker.app_topic(&message.topic);
        self.broker.metrics.delivered(&topic, end.fate, took);
        end.result
    }
}

/// How a message ended: for the broker, and for metrics.
pub struct End {
    pub result: Result<(), Error>,
    pub fate: Fate,
}

impl End {
    fn taken(fate: Fate) -> Self {
        Self {
            result: Ok(()),
            fate,
        }
    }
}

impl Inlet {
    /// Also how long the application had it.
    async fn process(&self, message: &Message) -> (End, Duration) {
        let incoming = match self.open(message) {
            Ok(incoming) => incoming,
            Err(cause) => {
                let (pubsub, topic) = self.names();
                tracing::error!(target: SCOPE, "error deserializing cloud event in pubsub {pubsub} and topic {topic}: {cause}");
                return (self.failed(message, cause).await, Duration::ZERO);
            }
        };
        if self.has_expired(&incoming.event) {
            return (self.dropped(message, Fate::Drop).await, Duration::ZERO);
        }
        let routed = self.route(&message.topic, rules::Subject::Event(&incoming.event));
        let path = match routed {
            Ok(Some(path)) => path,
            Ok(None) => return (self.dropped(message, Fate::Unwanted).await, Duration::ZERO),
            Err(cause) => {
                let (pubsub, topic) = self.names();
                tracing::error!(target: SCOPE, "error finding matching route for event {} in pubsub {pubsub} and topic {topic}: {cause}", incoming.event.id());
                return (self.failed(message, cause).await, Duration::ZERO);
            }
        };
        let started = Instant::now();
        let outcome = match self.policy() {
            None => self.deliver(&incoming, path).await,
            Some(policy) => Box::pin(self.guarded(&policy, &incoming, path)).await,
        };
        let took = started.elapsed();
        (self.settle(message, outcome).await, took)
    }

    /// Name of the component, and the topic.
    pub fn names(&self) -> (&str, &str) {
        let spec = &self.subscription.spec;
        (&spec.pubsubname, &spec.topic)
    }

    /// What applies to deliveries. Once the subscription ends nothing is tried
    /// again.
    pub fn policy(&self) -> Option<Policy> {
        let (pubsub, _) = self.names();
        let policy = self
            .resiliency
            .component(pubsub, Block::PubSub, Direction::Inbound)?;
        Some(policy.until(&self.stop))
    }

    async fn deliver(&self, incoming: &Incoming, path: &str) -> Outcome {
        let outcome = match &self.to {
            To::App(channel) => deliver::one(channel, incoming, path).await,
            To::Stream(outlet) => outlet.deliver(incoming, &self.stop).await,
        };
        if let Outcome::Failed(failed) = &outcome {
            let topic = &incoming.topic;
            tracing::warn!(target: SCOPE, "encountered a retriable error while publishing a subscribed message to topic {topic}, err: {failed}");
        }
        outcome
    }

    async fn guarded(&self, policy: &Policy, incoming: &Incoming, path: &str) -> Outcome {
        let running = policy.run(|_| async {
            match self.deliver(incoming, path).await {
                Outcome::Failed(failed) => Err(failed),
                settled => Ok(settled),
            }
        });
        running
            .await
            .unwrap_or_else(|error| Outcome::failed(error.to_string()))
    }

    /// Finds the event in a message, or makes one around it.
    fn open(&self, message: &Message) -> Result<Incoming, String> {
        let pubsub = self.names().0.to_owned();
        let topic = self.broker.app_topic(&message.topic);
        let mut metadata = message.metadata.clone();
        if let Some(content_type) = &message.content_type {
            metadata.insert(CONTENT_TYPE.to_owned(), content_type.clone());
        }
        metadata.insert(PUBSUB_NAME.to_owned(), pubsub.clone());
        let content_type = metadata.get(CONTENT_TYPE).cloned().unwrap_or_default();
        let (event, data) = if self.subscription.raw {
            let event = Event::of_raw_message(&message.data, &topic, &pubsub, &metadata);
            let data = event.to_bytes();
            (event.into_owned(), data)
        } else if envelope::is(&content_type, "application/octet-stream") {
            let event = Event::of_binary_message(&message.data, &content_type, &metadata);
            (event.into_owned(), message.data.clone())
        } else {
            let mut event = Event::read(&message.data)?;
            event.add_trace(&metadata);
            (event, message.data.clone())
        };
        Ok(Incoming {
            pubsub,
            topic,
            event,
            data,
            metadata,
        })
    }

    /// The application's path for a message, if it wants it.
    pub fn route(&self, topic: &str, subject: rules::Subject<'_>) -> Result<Option<&str>, String> {
        Ok(match self.subscription.rules.find(subject)? {
            Route::Path(path) => Some(path),
            Route::Nowhere => None,
            Route::Default { path, cause } => {
                let topic = self.broker.app_topic(topic);
                let pubsub = self.names().0;
                tracing::warn!(target: SCOPE, "a routing rule of pubsub {pubsub} and topic {topic} failed, the event goes to the default route {path:?}: {cause}");
                self.broker.metrics.rule_failed(&topic);
                Some(path)
            }
        })
    }

    pub fn has_expired(&self, event: &Event<'_>) -> bool {
        let Some(expiration) = event.expired() else {
            return false;
        };
        let id = event.id();
        tracing::warn!(target: SCOPE, "dropping expired pub/sub event {id} as of {expiration}");
        true
    }

    /// The one way in which a delivery ends, alone or in a batch.
    pub async fn settle(&self, message: &Message, outcome: Outcome) -> End {
        let fate = outcome.fate(matches!(self.to, To::App(_)));
        match outcome {
            Outcome::Done | Outcome::Ignored => End::taken(fate),
            Outcome::Dropped | Outcome::Refused => self.dropped(message, fate).await,
            Outcome::Failed(failed) => self.failed(message, failed.to_string()).await,
        }
    }

    /// The message was not taken: the dead letter topic keeps it, if there is
    /// one. One that cannot be kept comes again.
    pub async fn dropped(&self, message: &Message, fate: Fate) -> End {
        match self.dead_letter(message).await {
            None | Some(Ok(())) => End::taken(fate),
            Some(Err(cause)) => {
                let topic = self.broker.app_topic(&message.topic);
                tracing::warn!(target: SCOPE, "failed to send dropped message to dead letter queue for topic {topic}: {cause}");
                End {
                    result: Err(Error::internal(cause)),
                    fate: Fate::Retry,
                }
            }
        }
    }

    /// The dead letter topic takes the message, or else it stays with the
    /// broker.
    pub async fn failed(&self, message: &Message, cause: String) -> End {
        if !self.stop.is_cancelled()
            && let Some(Ok(())) = self.dead_letter(message).await
        {
            return End::taken(Fate::Drop);
        }
        End {
            result: Err(Error::internal(cause)),
            fate: Fate::Retry,
        }
    }

    /// None without a dead letter topic.
    async fn dead_letter(&self, message: &Message) -> Option<Result<(), String>> {
        let to = &self.subscription.spec.dead_letter_topic;
        if to.is_empty() {
            return None;
        }
        let mut metadata = message.metadata.clone();
        metadata.insert(PUBSUB_NAME.to_owned(), self.names().0.to_owned());
        let sending = async {
            if !self.broker.scopes.may_publish(to) {
                return Err(format!("publishing to topic '{to}' is not allowed"));
            }
            self.broker.send(to, message.data.clone(), metadata).await
        };
        let sent = tokio::time::timeout(DEAD_LETTER_LIMIT, sending)
            .await
            .unwrap_or_else(|_| Err("the broker did not answer in time".to_owned()));
        if let Err(cause) = &sent {
            tracing::error!(target: SCOPE, "error sending message to dead letter, origin topic: {} dead letter topic {to} err: {cause}", message.topic);
        }
        Some(sent)
    }
}
