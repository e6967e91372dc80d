//! `bindings.rabbitmq`: <https://docs.dapr.io/reference/components-reference/supported-bindings/rabbitmq/>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel};
use outrider_components::bindings::{
    Answer, Binding, CREATE, Directions, Event, Failure, Handler, Input, Output, Request,
    Subscription,
};
use outrider_components::{Context, Error, Field, Metadata, Pairs, Secret, Truthy};
use tokio_util::sync::CancellationToken;

use crate::connection::{Settings, Tls, close_channel, failed, name};
use crate::pubsub::message;
use crate::session::{Link, session};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
const HEARTBEAT: Duration = Duration::from_secs(10);
const PERSISTENT: u8 = 2;

outrider_components::fields! {
    struct Fields {
        /// `amqp://user:password@host:port/vhost`, or `amqps` for TLS.
        "host" => host: Secret, missing "missing host address";
        /// The queue.
        "queueName" => queue: String, missing "missing queue Name";
        /// Whether the queue outlives the server.
        "durable" => durable: bool = "false";
        /// Whether the queue is deleted when nobody reads it any more.
        "deleteWhenUnused" => delete_when_unused: bool = "false";
        /// Whether only this connection may use the queue.
        "exclusive" => exclusive: bool = "false";
        /// After how long a message that nobody has read is dropped.
        "ttl" | "ttlInSeconds" => ttl: Option<Duration>;
        /// Messages that are sent ahead; 0 means 256.
        "prefetchCount" => prefetch: u16 = "0";
        /// Makes the queue one of priorities up to this.
        "maxPriority" => max_priority: Option<u64>;
        /// How long to wait before connecting again.
        "reconnectWaitInSeconds" => reconnect_wait: Duration = "5s";
        /// Certificates that sign that of the server, in PEM.
        "caCert" => authority: Option<String>;
        /// Client certificate, in PEM.
        "clientCert" => certificate: Option<String>;
        /// Key of the client certificate, in PEM.
        "clientKey" => key: Option<Secret>;
        /// Whether the client certificate says who the client is.
        "externalSasl" | "saslExternal" => sasl_external: Truthy = "false";
    }
}

struct Rabbitmq {
    link: Link,
    queue: Queue,
    reconnect_wait: Duration,
}

#[derive(Clone)]
struct Queue {
    name: String,
    options: QueueDeclareOptions,
    arguments: FieldTable,
    prefetch: u16,
}

/// Connects, and makes the queue.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let fields = Fields::read(&metadata)?;
    for (text, what) in [
        (fields.authority.as_deref(), "ca certificate"),
        (fields.certificate.as_deref(), "client certificate"),
        (
            fields.key.as_ref().map(|key| key.0.as_str()),
            "client certificate key",
        ),
    ] {
        if text.is_some_and(|text| !text.contains("-----BEGIN ")) {
            return Err(Error::invalid(format!("invalid {what}")));
        }
    }
    let tls = Tls {
        authority: fields.authority,
        certificate: fields.certificate,
        key: fields.key,
        is_identity: fields.sasl_external.0,
    };
    let settings = Settings::new(&fields.host.0, tls, HEARTBEAT, None)?;
    let mut arguments = FieldTable::default();
    if let Some(ttl) = fields.ttl.filter(|ttl| !ttl.is_zero()) {
        let milliseconds = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let milliseconds = AMQPValue::LongLongInt(milliseconds);
        arguments.insert("x-message-ttl".into(), milliseconds);
    }
    if let Some(priority) = fields.max_priority {
        let priority = u8::try_from(priority).unwrap_or(u8::MAX);
        let priority = AMQPValue::ShortShortUInt(priority);
        arguments.insert("x-max-priority".into(), priority);
    }
    let queue = Queue {
        name: fields.queue,
        options: QueueDeclareOptions {
            durable: fields.durable,
            auto_delete: fields.delete_when_unused,
            exclusive: fields.exclusive,
            ..QueueDeclareOptions::default()
        },
        arguments,
        prefetch: match fields.prefetch {
            0 => 256,
            count => count,
        },
    };
    let link = Link::open(settings, fields.reconnect_wait).await?;
    let session = link.session(fields.reconnect_wait).await?;
    let channel = session.channel().await?;
    queue.declare(&channel).await?;
    close_channel(&channel).await;
    let rabbitmq = Arc::new(Rabbitmq {
        link,
        queue,
        reconnect_wait: fields.reconnect_wait,
    });
    let wanted = Directions::of(&metadata);
    Ok(Arc::new(Binding {
        input: wanted.input.then(|| rabbitmq.clone() as _),
        output: wanted.output.then_some(rabbitmq as _),
    }))
}

impl Queue {
    async fn declare(&self, channel: &Channel) -> Result<(), Error> {
        let arguments = self.arguments.clone();
        channel
            .queue_declare(name(&self.name)?, self.options, arguments)
            .await
            .map(drop)
            .map_err(failed)
    }
}

impl Rabbitmq {
    async fn create(&self, request: &Request) -> Result<(), Error> {
        self.link.check_open()?;
        let mut headers = FieldTable::default();
        for (key, value) in &request.metadata {
            let value = AMQPValue::LongString(LongString::from(value.as_str()));
            headers.insert(name(key)?, value);
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        let ttl = request.ttl();
        if let Some(ttl) = ttl.map_err(|error| error.context("failed to get TTL"))? {
            properties = properties.with_expiration(ttl.as_millis().to_string().into());
        }
        let properties = message(properties, &request.metadata)?;
        let publish = async {
            let session = self.link.session(self.reconnect_wait).await?;
            let publisher = session.publisher().await?;
            // One that was deleted with its last reader, or with the server.
            if !publisher.has_declared(&self.queue.name) {
                self.queue.declare(&publisher.channel).await?;
                publisher.declared(&self.queue.name);
            }
            let queue = name(&self.queue.name)?;
            publisher
                .publish("".into(), queue, &request.data, properties)
                .await
        };
        publish
            .await
            .map_err(|error| error.context("failed to publish message"))
    }
}

#[async_trait]
impl Output for Rabbitmq {
    fn operations(&self) -> Vec<&str> {
        vec![CREATE]
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        self.create(request).await?;
        Ok(None)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.link.session(Duration::ZERO).await.map(drop)
    }

    async fn close(&self) -> Result<(), Error> {
        self.link.close().await;
        Ok(())
    }
}

#[async_trait]
impl Input for Rabbitmq {
    async fn read(&self, handler: Arc<dyn Handler>) -> Result<Subscription, Error> {
        self.link.check_open()?;
        let mut subscription = Subscription::new(self.link.closed());
        let stopping = subscription.stopping();
        let sessions = self.link.sessions();
        let (queue, wait) = (self.queue.clone(), self.reconnect_wait);
        subscription.spawn(async move {
            while !stopping.is_cancelled() {
                let reading = async {
                    let session = session(&sessions, Duration::MAX).await?;
                    let channel = session.channel().await?;
                    let ended = queue.read(&channel, &*handler, &stopping).await;
                    close_channel(&channel).await;
                    ended
                };
                // A connection that comes only after the end is not waited for.
                let ended = tokio::select! {
                    biased;
                    ended = reading => ended,
                    () = stopped_for(&stopping, &sessions) => return,
                };
                if let Err(error) = ended {
                    tracing::error!(target: SCOPE, "Error consuming messages from queue [{}]: {error}", queue.name);
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.link.session(Duration::ZERO).await.map(drop)
    }

    async fn close(&self) -> Result<(), Error> {
        self.link.close().await;
        Ok(())
    }
}

/// Returns when reading is to stop and there is no connection to stop it on.
async fn stopped_for(
    stopping: &CancellationToken,
    sessions: &tokio::sync::watch::Receiver<Option<Arc<crate::session::Session>>>,
) {
    stopping.cancelled().await;
    let mut sessions = sessions.clone();
    let _ = sessions.wait_for(Option::is_none).await;
}

impl Queue {
    /// Reads one message after the other, until the channel ends.
    async fn read(
        &self,
        channel: &Channel,
        handler: &dyn Handler,
        stopping: &CancellationToken,
    ) -> Result<(), Error> {
        self.declare(channel).await?;
        channel
            .basic_qos(self.prefetch, BasicQosOptions::default())
            .await
            .map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let tag = name(&uuid::Uuid::new_v4().to_string())?;
        let mut consumer = channel
            .basic_consume(
                name(&self.name)?,
                tag.clone(),
                options,
                FieldTable::default(),
            )
            .await
            .map_err(failed)?;
        loop {
            let next = tokio::select! {
                next = consumer.next() => next,
                () = stopping.cancelled() => {
                    let _ = channel.basic_cancel(tag, BasicCancelOptions::default()).await;
                    return Ok(());
                }
            };
            match next {
                None => return Err(Error::unavailable("channel/connection is not open")),
                Some(Err(error)) => return Err(failed(error)),
                Some(Ok(delivery)) => handle(handler, delivery).await?,
            }
        }
    }
}

async fn handle(handler: &dyn Handler, mut delivery: Delivery) -> Result<(), Error> {
    let mut metadata = Pairs::new();
    let headers = delivery.properties.headers();
    for (key, value) in headers.iter().flat_map(FieldTable::inner) {
        if let AMQPValue::LongString(text) = value {
            let key: String = form_urlencoded::byte_serialize(key.as_str().as_bytes()).collect();
            metadata.insert(key, text.to_string());
        }
    }
    let event = Event {
        data: std::mem::take(&mut delivery.data).into(),
        metadata,
        content_type: None,
    };
    let settled = match handler.handle(event).await {
        Ok(_) => delivery.acker.ack(BasicAckOptions::default()).await,
        Err(_) => {
            let options = BasicNackOptions {
                requeue: true,
                ..BasicNackOptions::default()
            };
            delivery.acker.nack(options).await
        }
    };
    settled.map(drop).map_err(failed)
}
