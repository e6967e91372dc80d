//! Brokers that other programs serve.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::pubsub::{
    Broker, BulkPublishRequest, Entry, FailedEntry, Feature, Handler, Message, PublishRequest,
    SubscribeRequest, Subscription,
};
use outrider_components::{Error, Metadata};
use outrider_proto::components::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use wire::pub_sub_client::PubSubClient;

use crate::connection::{self, Connection};
use crate::error::{self, check, from_status};

const SCOPE: &str = "dapr.contrib";
/// Pauses before a stream that has failed is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a component may take to read the last acknowledgement.
const LAST_ACK_TIMEOUT: Duration = Duration::from_secs(1);

struct Remote {
    client: PubSubClient<Connection>,
    name: String,
    features: Vec<Feature>,
    closing: CancellationToken,
}

pub async fn connect(socket: Arc<Path>, metadata: Metadata) -> Result<Arc<dyn Broker>, Error> {
    let name = metadata.component().to_owned();
    let connection = connection::open(&socket, &name).await?;
    let mut client = PubSubClient::new(connection).max_decoding_message_size(usize::MAX);
    let metadata = Some(connection::properties(&metadata));
    let init = wire::PubSubInitRequest { metadata };
    check(client.init(init).await)?;
    let reported = client.features(wire::FeaturesRequest {}).await;
    let features = connection::features(reported, Feature::named)?;
    Ok(Arc::new(Remote {
        client,
        name,
        features,
        closing: CancellationToken::new(),
    }))
}

#[async_trait]
impl Broker for Remote {
    fn features(&self) -> &[Feature] {
        &self.features
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
        let request = wire::PublishRequest {
            data: request.data.clone(),
            pubsub_name: self.name.clone(),
            topic: request.topic.clone(),
            metadata: request.metadata.clone(),
            content_type: request.content_type.clone().unwrap_or_default(),
        };
        check(self.client.clone().publish(request).await)
    }

    async fn bulk_publish(&self, request: &BulkPublishRequest) -> Result<Vec<FailedEntry>, Error> {
        let entry = |entry: &Entry| wire::BulkMessageEntry {
            entry_id: entry.id.clone(),
            event: entry.data.clone(),
            content_type: entry.content_type.clone(),
            metadata: entry.metadata.clone(),
        };
        let request = wire::BulkPublishRequest {
            entries: request.entries.iter().map(entry).collect(),
            pubsub_name: self.name.clone(),
            topic: request.topic.clone(),
            metadata: request.metadata.clone(),
        };
        let answer = self.client.clone().bulk_publish(request).await;
        let failed = answer.map_err(from_status)?.into_inner().failed_entries;
        let failed = failed.into_iter().map(|entry| FailedEntry {
            id: entry.entry_id,
            error: Error::internal(entry.error),
        });
        Ok(failed.collect())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        let mut subscription = Subscription::new(&self.closing);
        let pull = Pull {
            client: self.client.clone(),
            topic: wire::Topic {
                name: request.topic,
                metadata: request.metadata,
            },
            handler,
            stopping: subscription.stopping(),
        };
        subscription.spawn(pull.run());
        Ok(subscription)
    }

    async fn pause(&self) -> Result<(), Error> {
        check(self.client.clone().pause(wire::PauseRequest {}).await)
    }

    async fn resume(&self) -> Result<(), Error> {
        check(self.client.clone().resume(wire::ResumeRequest {}).await)
    }

    async fn ping(&self) -> Result<(), Error> {
        check(self.client.clone().ping(wire::PingRequest {}).await)
    }

    async fn close(&self) -> Result<(), Error> {
        self.closing.cancel();
        Ok(())
    }
}

/// One subscription: messages come one after the other, and each is
/// acknowledged before the next.
struct Pull {
    client: PubSubClient<Connection>,
    topic: wire::Topic,
    handler: Arc<dyn Handler>,
    stopping: CancellationToken,
}

impl Pull {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while let Err(cause) = self.stream(&mut pause).await {
            let (topic, millis) = (&self.topic.name, pause.as_millis());
            tracing::error!(target: SCOPE, "Failed to receive pubsub message: {}; subscribing to topic {topic} again in {millis}ms", error::text(&cause));
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Handles messages until the subscription stops; fails if the stream does.
    async fn stream(&mut self, pause: &mut Duration) -> Result<(), Status> {
        let stopping = self.stopping.clone();
        let (requests, outgoing) = mpsc::channel(1);
        let first = wire::PullMessagesRequest {
            topic: Some(self.topic.clone()),
            ..Default::default()
        };
        let ended = || Status::new(Code::Unavailable, "the component ended the stream");
        requests.send(first).await.map_err(|_| ended())?;
        let opening = self.client.pull_messages(ReceiverStream::new(outgoing));
        let mut messages = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            opened = opening => opened?.into_inner(),
        };
        loop {
            let message = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                message = messages.message() => message?.ok_or_else(ended)?,
            };
            *pause = FIRST_PAUSE;
            let acknowledgement = self.handle(message).await;
            if requests.send(acknowledgement).await.is_err() {
                return Err(ended());
            }
        }
        // Messages that arrive now are not acknowledged, so the broker keeps
        // them.
        drop(requests);
        let rest = async { while let Ok(Some(_)) = messages.message().await {} };
        let _ = tokio::time::timeout(LAST_ACK_TIMEOUT, rest).await;
        Ok(())
    }

    async fn handle(&self, message: wire::PullMessagesResponse) -> wire::PullMessagesRequest {
        let (id, content_type) = (message.id, message.content_type);
        let topic = message.topic_name;
        let handled = self.handler.handle(Message {
            topic: topic.clone(),
            data: message.data,
            metadata: message.metadata,
            content_type: (!content_type.is_empty()).then_some(content_type),
        });
        let ack_error = handled.await.err().map(|cause| {
            tracing::error!(target: SCOPE, "error when handling message on topic {topic}: {cause}");
            let message = cause.to_string();
            wire::AckMessageError { message }
        });
        wire::PullMessagesRequest {
            topic: None,
            ack_message_id: id,
            ack_error,
        }
    }
}
