//! A subscription: its queue, and what is done with its messages.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Consumer, ExchangeKind};
use outrider_components::pubsub::{Handler, Message, SubscribeRequest, Subscription};
use outrider_components::{Error, Pairs};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Options, SCOPE};
use crate::connection::{close_channel, failed, name};
use crate::session::{Session, session};

/// How long the first attempt to subscribe may take.
const STARTED_WITHIN: Duration = Duration::from_secs(60);

pub struct Reader {
    options: Arc<Options>,
    topic: String,
    queue: String,
    metadata: Pairs,
    handler: Arc<dyn Handler>,
}

type Sessions = watch::Receiver<Option<Arc<Session>>>;
type Started = oneshot::Sender<Result<(), Error>>;

impl Reader {
    pub fn new(
        options: Arc<Options>,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Reader, Error> {
        let named = request.metadata.get("queueName").filter(|n| !n.is_empty());
        let queue = match named {
            Some(name) => name.clone(),
            None if options.consumer.is_empty() => {
                return Err(Error::invalid(
                    "consumerID is required for subscriptions that don't specify a queue name",
                ));
            }
            None => format!("{}-{}", options.consumer, request.topic),
        };
        let reader = Reader {
            options,
            topic: request.topic,
            queue,
            metadata: request.metadata,
            handler,
        };
        // What is wrong with the metadata is known before there is a server.
        reader.arguments()?;
        Ok(reader)
    }

    /// Returns when the server sends messages.
    pub async fn start(
        self,
        mut subscription: Subscription,
        sessions: Sessions,
    ) -> Result<Subscription, Error> {
        let queue = self.queue.clone();
        let (started, starting) = oneshot::channel();
        let stopping = subscription.stopping();
        subscription.spawn(Arc::new(self).run(sessions, stopping, started));
        match tokio::time::timeout(STARTED_WITHIN, starting).await {
            Ok(Ok(result)) => result.map(|()| subscription),
            _ => Err(Error::unavailable(format!(
                "failed to subscribe to {queue}"
            ))),
        }
    }

    async fn run(self: Arc<Self>, sessions: Sessions, stopping: CancellationToken, first: Started) {
        let mut first = Some(first);
        while !stopping.is_cancelled() {
            let reading = self.read(&sessions, &stopping, &mut first).await;
            let Err(error) = reading else { continue };
            // The server understood the declaration, and will not have it.
            if error.kind() == outrider_components::Kind::Internal
                && let Some(first) = first.take()
            {
                let _ = first.send(Err(error));
                return;
            }
            if !stopping.is_cancelled() {
                tracing::error!(target: SCOPE, "rabbitmq pub/sub: error in subscriber for {}: {error}", self.queue);
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.reconnect_wait) => {}
                () = stopping.cancelled() => {}
            }
        }
    }

    /// Reads on one channel until it ends.
    async fn read(
        self: &Arc<Self>,
        sessions: &Sessions,
        stopping: &CancellationToken,
        first: &mut Option<Started>,
    ) -> Result<(), Error> {
        let session = tokio::select! {
            session = session(sessions, STARTED_WITHIN) => session?,
            () = stopping.cancelled() => return Ok(()),
        };
        let channel = session.channel().await?;
        self.prepare(&channel).await?;
        let options = BasicConsumeOptions {
            no_ack: self.options.auto_ack,
            ..BasicConsumeOptions::default()
        };
        let tag = name(&uuid::Uuid::new_v4().to_string())?;
        let consumer = channel
            .basic_consume(
                name(&self.queue)?,
                tag.clone(),
                options,
                FieldTable::default(),
            )
            .await
            .map_err(failed)?;
        if let Some(first) = first.take() {
            let _ = first.send(Ok(()));
        }
        let mut handling = JoinSet::new();
        let ended = self.deliver(consumer, stopping, &mut handling).await;
        if stopping.is_cancelled() {
            let _ = channel
                .basic_cancel(tag, BasicCancelOptions::default())
                .await;
        }
        while handling.join_next().await.is_some() {}
        close_channel(&channel).await;
        ended
    }

    /// Hands on messages until the channel ends or the subscription stops.
    async fn deliver(
        self: &Arc<Self>,
        mut consumer: Consumer,
        stopping: &CancellationToken,
        handling: &mut JoinSet<()>,
    ) -> Result<(), Error> {
        loop {
            while handling.try_join_next().is_some() {}
            let next = tokio::select! {
                next = consumer.next() => next,
                () = stopping.cancelled() => return Ok(()),
            };
            let delivery = match next {
                None => return Err(Error::unavailable("channel/connection is not open")),
                Some(Err(error)) => return Err(failed(error)),
                Some(Ok(delivery)) => delivery,
            };
            let reader = Arc::clone(self);
            if self.options.in_order {
                reader.handle(delivery).await;
                continue;
            }
            // What acknowledges itself is not bounded by the server.
            while handling.len() >= usize::from(self.options.prefetch) {
                handling.join_next().await;
            }
            handling.spawn(async move { reader.handle(delivery).await });
        }
    }

    async fn handle(&self, mut delivery: Delivery) {
        let metadata = if self.options.shows_properties {
            properties(&delivery)
        } else {
            Pairs::new()
        };
        let message = Message {
            topic: self.topic.clone(),
            data: std::mem::take(&mut delivery.data).into(),
            metadata,
            content_type: None,
        };
        let handled = self.handler.handle(message).await;
        if let Err(error) = &handled {
            tracing::error!(target: SCOPE, "rabbitmq pub/sub error: handling message from topic '{}', {error}", self.topic);
        }
        if self.options.auto_ack {
            return;
        }
        let settled = match handled {
            Ok(()) => delivery.acker.ack(BasicAckOptions::default()).await,
            Err(_) => {
                let options = BasicNackOptions {
                    requeue: self.options.requeue,
                    ..BasicNackOptions::default()
                };
                delivery.acker.nack(options).await
            }
        };
        if let Err(error) = settled {
            tracing::error!(target: SCOPE, "rabbitmq pub/sub: error acking message from topic '{}', {error}", self.topic);
        }
    }

    /// Declares the exchange, the queue and what is between them.
    async fn prepare(&self, channel: &Channel) -> Result<(), Error> {
        let options = &self.options;
        options
            .declare_exchange(channel, &self.topic, options.kind.clone(), options.durable)
            .await?;
        if options.dead_letter {
            self.prepare_dead_letters(channel).await?;
        }
        let declaration = QueueDeclareOptions {
            durable: options.durable,
            auto_delete: options.delete_when_unused,
            ..QueueDeclareOptions::default()
        };
        let queue = name(&self.queue)?;
        channel
            .queue_declare(queue.clone(), declaration, self.arguments()?)
            .await
            .map_err(failed)?;
        channel
            .basic_qos(options.prefetch, BasicQosOptions::default())
            .await
            .map_err(failed)?;
        let keys = self.metadata.get("routingKey").map_or("", String::as_str);
        for key in keys.split(',') {
            let (topic, key) = (name(&self.topic)?, name(key)?);
            let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(queue.clone(), topic, key, bind, none)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Both are durable, whatever the others are.
    async fn prepare_dead_letters(&self, channel: &Channel) -> Result<(), Error> {
        let options = &self.options;
        let exchange = format!("dlx-{}", self.queue);
        options
            .declare_exchange(channel, &exchange, ExchangeKind::Fanout, true)
            .await?;
        let mut arguments = self.limits();
        // Most of them stay on the disk.
        arguments.insert("x-queue-mode".into(), text("lazy"));
        let declaration = QueueDeclareOptions {
            durable: true,
            auto_delete: options.delete_when_unused,
            ..QueueDeclareOptions::default()
        };
        let queue = name(&format!("dlq-{}", self.queue))?;
        channel
            .queue_declare(queue.clone(), declaration, arguments)
            .await
            .map_err(failed)?;
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(queue, name(&exchange)?, "".into(), bind, none)
            .await
            .map_err(failed)
    }

    fn limits(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        for (key, limit) in [
            ("x-max-length", self.options.max_length),
            ("x-max-length-bytes", self.options.max_bytes),
        ] {
            if limit > 0 {
                arguments.insert(key.into(), AMQPValue::LongLongInt(limit));
            }
        }
        arguments
    }

    /// What makes the queue the one that it is.
    fn arguments(&self) -> Result<FieldTable, Error> {
        let mut arguments = self.limits();
        if self.options.dead_letter {
            let exchange = format!("dlx-{}", self.queue);
            arguments.insert("x-dead-letter-exchange".into(), text(&exchange));
        }
        let given = |key: &str| self.metadata.get(key).filter(|value| !value.is_empty());
        if let Some(number) = given("maxPriority") {
            let priority = u8::try_from(self.number(number)?).unwrap_or(u8::MAX);
            let priority = AMQPValue::ShortShortUInt(priority);
            arguments.insert("x-max-priority".into(), priority);
        }
        let kind = given("queueType").map_or("classic", String::as_str);
        if !["classic", "quorum"].contains(&kind) {
            return Err(Error::invalid(format!(
                "invalid queue type {kind}. Valid types are classic and quorum"
            )));
        }
        arguments.insert("x-queue-type".into(), text(kind));
        if given("singleActiveConsumer").is_some_and(|text| outrider_kit::truthy(text)) {
            let key = "x-single-active-consumer".into();
            arguments.insert(key, AMQPValue::Boolean(true));
        }
        for (field, key) in [
            ("maxLenBytes", "x-max-length-bytes"),
            ("maxLen", "x-max-length"),
        ] {
            if let Some(number) = given(field) {
                let limit = i64::try_from(self.number(number)?).unwrap_or(i64::MAX);
                arguments.insert(key.into(), AMQPValue::LongLongInt(limit));
            }
        }
        Ok(arguments)
    }

    fn number(&self, text: &str) -> Result<u64, Error> {
        text.parse().map_err(|_| {
            let quoted = outrider_kit::quote::go(text);
            Error::invalid(format!(
                "strconv.ParseUint: parsing {quoted}: invalid syntax"
            ))
        })
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// The properties of a message as metadata.
fn properties(delivery: &Delivery) -> Pairs {
    let properties = &delivery.properties;
    let mut pairs = Pairs::new();
    for (key, value) in [
        ("messageid", properties.message_id()),
        ("correlationid", properties.correlation_id()),
        ("type", properties.kind()),
        ("contenttype", properties.content_type()),
    ] {
        if let Some(value) = value {
            pairs.insert(format!("metadata.{key}"), value.as_str().to_owned());
        }
    }
    for (key, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if let Some(text) = header(value) {
            pairs.insert(format!("metadata.{key}"), text);
        }
    }
    pairs
}

/// A header as text.
pub fn header(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::Void => None,
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::ByteArray(bytes) => Some(String::from_utf8_lossy(bytes.as_slice()).into_owned()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::ShortShortInt(number) => Some(number.to_string()),
        AMQPValue::ShortShortUInt(number) => Some(number.to_string()),
        AMQPValue::ShortInt(number) => Some(number.to_string()),
        AMQPValue::ShortUInt(number) => Some(number.to_string()),
        AMQPValue::LongInt(number) => Some(number.to_string()),
        AMQPValue::LongUInt(number) => Some(number.to_string()),
        AMQPValue::LongLongInt(number) => Some(number.to_string()),
        AMQPValue::Float(number) => Some(number.to_string()),
        AMQPValue::Double(number) => Some(number.to_string()),
        AMQPValue::Timestamp(seconds) => Some(seconds.to_string()),
        other => Some(format!("{other:?}")),
    }
}
