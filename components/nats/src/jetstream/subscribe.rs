//! A subscription: its consumer, and what is done with its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::jetstream::{AckKind, Context as Jetstream, Message as Delivery};
use futures_util::StreamExt as _;
use outrider_components::pubsub::{Handler, Message};
use outrider_components::{Error, Pairs};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Options, SCOPE, unavailable};

/// Messages that are handled at a time. How many come before they are
/// acknowledged is up to `maxAckPending`.
const PARALLEL: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub struct Reader {
    pub jetstream: Jetstream,
    pub options: Arc<Options>,
    pub stream: String,
    pub topic: String,
    pub handler: Arc<dyn Handler>,
}

impl Reader {
    /// Makes the consumer, after the message `last` where it goes on for one
    /// that the server has forgotten.
    pub async fn consume(&self, last: Option<u64>) -> Result<push::Messages, Error> {
        let mut config = self.options.consumer.clone();
        config.deliver_subject = self.jetstream.client().new_inbox();
        config.filter_subject = self.topic.clone();
        if let (Some(last), None) = (last, &config.durable_name) {
            config.deliver_policy = DeliverPolicy::ByStartSequence {
                start_sequence: last + 1,
            };
        }
        let stream = self
            .jetstream
            .get_stream(&self.stream)
            .await
            .map_err(unavailable)?;
        // Instances that share a consumer share its subject too.
        if let (Some(name), Some(_)) = (&config.durable_name, &config.deliver_group)
            && let Ok(known) = stream.get_consumer::<push::Config>(name).await
        {
            return known.messages().await.map_err(unavailable);
        }
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        consumer.messages().await.map_err(unavailable)
    }

    pub async fn run(self, messages: push::Messages, stopping: CancellationToken) {
        let reader = Arc::new(self);
        // The newest message before which all have been handled, as far as
        // they are handled in order.
        let last = Arc::new(AtomicU64::new(0));
        let mut next = Some(messages);
        let mut pause = FIRST_PAUSE;
        let mut handling = JoinSet::new();
        while !stopping.is_cancelled() {
            let known = Some(last.load(Ordering::Relaxed)).filter(|last| *last > 0);
            let messages = match next.take() {
                Some(messages) => Ok(messages),
                None => tokio::select! {
                    made = reader.consume(known) => made,
                    () = stopping.cancelled() => break,
                },
            };
            let ended = match messages {
                Ok(messages) => {
                    pause = FIRST_PAUSE;
                    reader
                        .deliver(messages, &stopping, &last, &mut handling)
                        .await
                }
                Err(error) => error,
            };
            if stopping.is_cancelled() {
                break;
            }
            tracing::warn!(target: SCOPE, "nats: subscription to {} is made again: {ended}", reader.topic);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.cancelled() => break,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        while handling.join_next().await.is_some() {}
    }

    /// Hands on messages until the consumer ends, and returns why.
    async fn deliver(
        self: &Arc<Self>,
        mut messages: push::Messages,
        stopping: &CancellationToken,
        last: &Arc<AtomicU64>,
        handling: &mut JoinSet<()>,
    ) -> Error {
        loop {
            while handling.try_join_next().is_some() {}
            let next = tokio::select! {
                next = messages.next() => next,
                () = stopping.cancelled() => return Error::unavailable("stopped"),
            };
            let delivery = match next {
                None => return Error::unavailable("the subscription ended"),
                Some(Err(error)) => return unavailable(error),
                Some(Ok(delivery)) => delivery,
            };
            let (reader, last) = (Arc::clone(self), Arc::clone(last));
            if self.options.in_order {
                reader.handle(delivery, &last).await;
                continue;
            }
            while handling.len() >= PARALLEL {
                handling.join_next().await;
            }
            handling.spawn(async move { reader.handle(delivery, &last).await });
        }
    }

    async fn handle(&self, delivery: Delivery, last: &AtomicU64) {
        let sequence = match delivery.info() {
            Ok(info) => info.stream_sequence,
            Err(error) => {
                tracing::error!(target: SCOPE, "{error}");
                return;
            }
        };
        let subject = delivery.subject.to_string();
        let message = Message {
            topic: self.topic.clone(),
            data: delivery.payload.clone(),
            metadata: Pairs::from([("Topic".to_owned(), subject.clone())]),
            content_type: None,
        };
        let handled = self.handler.handle(message).await;
        let kind = match &handled {
            Ok(()) => AckKind::Ack,
            Err(error) => {
                tracing::error!(target: SCOPE, "Error processing JetStream message {subject}/{sequence}: {error}");
                AckKind::Nak(Some(self.options.nak_delay))
            }
        };
        if self.options.in_order && handled.is_ok() {
            last.fetch_max(sequence, Ordering::Relaxed);
        }
        if self.options.consumer.ack_policy == AckPolicy::None {
            return;
        }
        if let Err(error) = delivery.ack_with(kind).await {
            tracing::error!(target: SCOPE, "Error while sending ACK for JetStream message {subject}/{sequence}: {error}");
        }
    }
}
