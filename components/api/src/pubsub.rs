//! Message brokers: <https://docs.dapr.io/developing-applications/building-blocks/pubsub/>.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

pub use crate::subscription::Subscription;
use crate::{Error, Pairs};

/// Messages of one bulk request that are published at a time.
const BULK_PARALLELISM: usize = 100;

/// What a broker can do beyond publishing and subscribing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Messages can expire inside the broker.
    MessageTtl,
    /// A subscription's topic may be a pattern.
    SubscribeWildcards,
    /// Several messages are published in one step.
    BulkPublish,
    /// The broker delivers one message at a time: waiting for a batch to fill
    /// is useless.
    BulkSubscribeImmediate,
}

impl Feature {
    /// All of them.
    const ALL: [Feature; 4] = [
        Feature::MessageTtl,
        Feature::SubscribeWildcards,
        Feature::BulkPublish,
        Feature::BulkSubscribeImmediate,
    ];

    /// The feature of this name.
    pub fn named(name: &str) -> Option<Feature> {
        Feature::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The name that the metadata API reports.
    pub fn name(self) -> &'static str {
        match self {
            Feature::MessageTtl => "MESSAGE_TTL",
            Feature::SubscribeWildcards => "SUBSCRIBE_WILDCARDS",
            Feature::BulkPublish => "BULK_PUBSUB",
            Feature::BulkSubscribeImmediate => "BULK_SUBSCRIBE_IMMEDIATE",
        }
    }
}

/// Publishes one message.
#[derive(Debug, Clone, Default)]
pub struct PublishRequest {
    /// The topic.
    pub topic: String,
    /// The message, envelope included if it has one.
    pub data: Bytes,
    /// The client's metadata, such as `ttlInSeconds`.
    pub metadata: Pairs,
    /// The content type of `data`.
    pub content_type: Option<String>,
}

/// One message of a bulk request.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Names the message within its request.
    pub id: String,
    /// The message, envelope included if it has one.
    pub data: Bytes,
    /// The client's metadata for this message.
    pub metadata: Pairs,
    /// The content type of `data`; may be empty.
    pub content_type: String,
}

/// Publishes several messages to one topic.
#[derive(Debug, Clone, Default)]
pub struct BulkPublishRequest {
    /// The topic.
    pub topic: String,
    /// The messages.
    pub entries: Vec<Entry>,
    /// The client's metadata for the request.
    pub metadata: Pairs,
}

/// A message of a bulk request that was not published.
#[derive(Debug)]
pub struct FailedEntry {
    /// The [`Entry::id`].
    pub id: String,
    /// Why.
    pub error: Error,
}

/// Asks for the messages of a topic.
#[derive(Debug, Clone, Default)]
pub struct SubscribeRequest {
    /// The topic, or a pattern where the broker knows patterns.
    pub topic: String,
    /// The subscription's metadata.
    pub metadata: Pairs,
}

/// A message that arrived.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The topic of the subscription it arrived on.
    pub topic: String,
    /// The message, envelope included if it has one.
    pub data: Bytes,
    /// The metadata of the publisher and the broker.
    pub metadata: Pairs,
    /// The content type of `data`.
    pub content_type: Option<String>,
}

/// Handles messages. Returning `Ok` acknowledges the message; after an error the
/// broker may deliver it again, by its own rules.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles one message.
    async fn handle(&self, message: Message) -> Result<(), Error>;
}

#[async_trait]
impl<F, Handled> Handler for F
where
    F: Fn(Message) -> Handled + Send + Sync,
    Handled: Future<Output = Result<(), Error>> + Send,
{
    async fn handle(&self, message: Message) -> Result<(), Error> {
        self(message).await
    }
}

/// A connected broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// What the broker can do, in the order in which it is reported.
    fn features(&self) -> &[Feature];

    /// Publishes one message; returns when the broker has it.
    async fn publish(&self, request: &PublishRequest) -> Result<(), Error>;

    /// Publishes several messages in any order, and returns those that failed.
    /// An error means that none was published.
    async fn bulk_publish(&self, request: &BulkPublishRequest) -> Result<Vec<FailedEntry>, Error> {
        let failed = stream::iter(0..request.entries.len())
            .map(|index| async move {
                let entry = &request.entries[index];
                let content_type = &entry.content_type;
                let single = PublishRequest {
                    topic: request.topic.clone(),
                    data: entry.data.clone(),
                    metadata: entry.metadata.clone(),
                    content_type: (!content_type.is_empty()).then(|| content_type.clone()),
                };
                let error = self.publish(&single).await.err()?;
                Some(FailedEntry {
                    id: entry.id.clone(),
                    error,
                })
            })
            .buffered(BULK_PARALLELISM)
            .filter_map(|failed| async move { failed })
            .collect()
            .await;
        Ok(failed)
    }

    /// Starts delivering the messages of a topic to `handler`, until the
    /// subscription is closed or dropped, or the broker is closed.
    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error>;

    /// Stops fetching messages. Those already fetched are still delivered.
    async fn pause(&self) -> Result<(), Error> {
        Err(Error::unsupported("the broker cannot pause"))
    }

    /// Fetches messages again after [`pause`](Broker::pause).
    async fn resume(&self) -> Result<(), Error> {
        Err(Error::unsupported("the broker cannot pause"))
    }

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends every subscription and the connections. No other call comes
    /// after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Probe;

    #[async_trait]
    impl Broker for Probe {
        fn features(&self) -> &[Feature] {
            &[]
        }

        async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
            if request.data.is_empty() {
                return Err(Error::unavailable("no"));
            }
            Ok(())
        }

        async fn subscribe(
            &self,
            _: SubscribeRequest,
            _: Arc<dyn Handler>,
        ) -> Result<Subscription, Error> {
            Err(Error::unsupported("no"))
        }
    }

    #[tokio::test]
    async fn bulk_publish_returns_the_messages_that_failed() {
        let entry = |id: &str, data: &'static [u8]| Entry {
            id: id.to_owned(),
            data: Bytes::from_static(data),
            ..Entry::default()
        };
        let request = BulkPublishRequest {
            topic: "t".to_owned(),
            entries: vec![entry("1", b"x"), entry("2", b""), entry("3", b"z")],
            metadata: Pairs::new(),
        };
        let failed = Probe.bulk_publish(&request).await.expect("some work");
        let ids: Vec<_> = failed.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["2"]);
    }
}
