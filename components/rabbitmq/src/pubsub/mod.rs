//! `pubsub.rabbitmq`: <https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-rabbitmq/>.
//!
//! A topic is an exchange, an application a queue of it, which all instances of
//! the application read.

mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use outrider_components::bindings::time_to_live;
use outrider_components::pubsub::{
    Broker, Feature, Handler, PublishRequest, SubscribeRequest, Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata, Pairs, Secret};

use crate::connection::{Settings, Tls, failed, name};
use crate::session::Link;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
const PREFIX: &str = "rabbitmq pub/sub error:";
/// Attempts to publish one message.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// Messages of a subscription that are here at a time, where the component
/// says nothing.
const PREFETCH: u16 = 256;

outrider_components::fields! {
    struct Fields {
        /// Names the queues; the application's id if absent.
        "consumerID" => consumer: Option<String>;
        /// `amqp://user:password@host:port/vhost`, or `amqps` for TLS.
        "connectionString" | "host" => connection_string: Option<Secret>;
        /// Host and port of the server, where there is no connection string.
        "hostname" => hostname: String = "localhost";
        /// `amqp` or `amqps`.
        "protocol" => protocol: Option<String>;
        /// User at the server.
        "username" => username: Option<String>;
        /// Password of the user.
        "password" => password: Option<Secret>;
        /// Whether exchanges and queues outlive the server.
        "durable" => durable: bool = "true";
        /// Whether exchanges and queues are deleted when nobody uses them.
        "deletedWhenUnused" => delete_when_unused: bool = "true";
        /// Whether messages count as acknowledged when they are sent.
        "autoAck" => auto_ack: bool = "false";
        /// Whether a message whose handling failed is delivered again.
        "requeueInFailure" => requeue: bool = "false";
        /// 2 writes messages to the disk; 0 and 1 do not.
        "deliveryMode" => delivery_mode: u16 = "0";
        /// Messages of a subscription that are sent ahead; 0 means 256.
        "prefetchCount" => prefetch: u16 = "0";
        /// How long to wait before connecting again.
        "reconnectWaitSeconds" => reconnect_wait: Duration = "3s";
        /// Whether messages whose handling failed go to a queue of their own,
        /// `dlq-<queue>`.
        "enableDeadLetter" => dead_letter: bool = "false";
        /// Messages that a queue keeps; 0 means any number.
        "maxLen" => max_length: i64 = "0";
        /// Bytes that a queue keeps; 0 means any number.
        "maxLenBytes" => max_bytes: i64 = "0";
        /// `fanout`, `topic`, `direct` or `headers`.
        "exchangeKind" => exchange_kind: String = "fanout";
        /// Accepted; messages are always confirmed by the server.
        "publisherConfirm" => publisher_confirm: bool = "false";
        /// `parallel` or `single`: whether one message waits for the one
        /// before.
        "concurrencyMode" | "concurrency" => concurrency: String = "parallel";
        /// After how long a message that nobody has read is dropped.
        "ttlInSeconds" | "ttl" => ttl: Option<Duration>;
        /// The connection's name at the server.
        "clientName" => client_name: Option<String>;
        /// How often both sides show that they are there.
        "heartBeat" => heartbeat: Duration = "10s";
        /// Whether the application gets the properties of messages.
        "publishMessagePropertiesToMetadata" => shows_properties: bool = "false";
        /// Certificates that sign that of the server, in PEM.
        "caCert" => authority: Option<String>;
        /// Client certificate, in PEM.
        "clientCert" => certificate: Option<String>;
        /// Key of the client certificate, in PEM.
        "clientKey" => key: Option<Secret>;
        /// Whether the client certificate says who the client is. Needs all
        /// three of the above.
        "saslExternal" => sasl_external: bool = "false";
    }
}

struct Rabbitmq {
    link: Link,
    options: Arc<Options>,
    ttl: Option<Duration>,
    delivery_mode: u8,
}

/// How exchanges and queues are made and read.
struct Options {
    consumer: String,
    kind: ExchangeKind,
    durable: bool,
    delete_when_unused: bool,
    auto_ack: bool,
    requeue: bool,
    prefetch: u16,
    dead_letter: bool,
    max_length: i64,
    max_bytes: i64,
    in_order: bool,
    shows_properties: bool,
    reconnect_wait: Duration,
}

impl Fields {
    fn settings(&self) -> Result<Settings, Error> {
        let has_all = self.authority.is_some() && self.certificate.is_some() && self.key.is_some();
        if self.sasl_external && !has_all {
            return Err(Error::invalid(
                "saslExternal can only be set to true, when all these properties are set: caCert, clientCert, clientKey",
            ));
        }
        let tls = Tls {
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            is_identity: self.sasl_external,
        };
        let uri = match &self.connection_string {
            Some(text) => text.0.clone(),
            None => self.uri(),
        };
        let settings = Settings::new(&uri, tls, self.heartbeat, self.client_name.clone())
            .map_err(|error| error.context(&format!("{PREFIX} invalid connection string")))?;
        if self
            .protocol
            .as_deref()
            .is_some_and(|p| p != settings.scheme())
        {
            return Err(Error::invalid(format!(
                "{PREFIX} protocol does not match connection string"
            )));
        }
        Ok(settings)
    }

    fn uri(&self) -> String {
        let protocol = self.protocol.as_deref().unwrap_or("amqp");
        let escape = |text: &str| {
            // A plus sign is none of a URI's escapes.
            let escaped: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            escaped.replace('+', "%20")
        };
        let user = match (&self.username, &self.password) {
            (Some(user), Some(password)) => {
                format!("{}:{}@", escape(user), escape(&password.0))
            }
            (Some(user), None) => format!("{}@", escape(user)),
            (None, _) => String::new(),
        };
        format!("{protocol}://{user}{}", self.hostname)
    }

    fn options(self, app_id: String) -> Result<Options, Error> {
        if self.delivery_mode > 2 {
            return Err(Error::invalid(format!(
                "{PREFIX} invalid RabbitMQ delivery mode, accepted values are between 0 and 2"
            )));
        }
        let kind = match &*self.exchange_kind {
            "fanout" => ExchangeKind::Fanout,
            "topic" => ExchangeKind::Topic,
            "direct" => ExchangeKind::Direct,
            "headers" => ExchangeKind::Headers,
            other => {
                return Err(Error::invalid(format!(
                    "{PREFIX} invalid RabbitMQ exchange kind {other}"
                )));
            }
        };
        let in_order = match &*self.concurrency {
            "parallel" => false,
            "single" => true,
            other => {
                let text = format!("invalid concurrencyMode {other}");
                return Err(Error::invalid(text));
            }
        };
        Ok(Options {
            consumer: self.consumer.unwrap_or(app_id),
            kind,
            durable: self.durable,
            delete_when_unused: self.delete_when_unused,
            auto_ack: self.auto_ack,
            requeue: self.requeue,
            prefetch: match self.prefetch {
                0 => PREFETCH,
                // More does not fit where Dapr keeps it.
                count => count.min(255),
            },
            dead_letter: self.dead_letter,
            max_length: self.max_length,
            max_bytes: self.max_bytes,
            in_order,
            shows_properties: self.shows_properties,
            reconnect_wait: self.reconnect_wait,
        })
    }
}

/// Connects to the server.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Broker>, Error> {
    let fields = Fields::read(&metadata)?;
    let settings = fields.settings()?;
    let ttl = fields.ttl.filter(|ttl| !ttl.is_zero());
    let delivery_mode = u8::try_from(fields.delivery_mode).unwrap_or(u8::MAX);
    let options = fields.options(context.app_id)?;
    Ok(Arc::new(Rabbitmq {
        link: Link::open(settings, options.reconnect_wait).await?,
        options: Arc::new(options),
        ttl,
        delivery_mode,
    }))
}

impl Options {
    async fn declare_exchange(
        &self,
        channel: &Channel,
        exchange: &str,
        kind: ExchangeKind,
        durable: bool,
    ) -> Result<(), Error> {
        let options = ExchangeDeclareOptions {
            durable,
            auto_delete: self.delete_when_unused,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(name(exchange)?, kind, options, FieldTable::default())
            .await
            .map_err(failed)
    }
}

impl Rabbitmq {
    /// The properties of a message with these metadata.
    fn properties(&self, topic: &str, metadata: &Pairs) -> Result<BasicProperties, Error> {
        let ttl = time_to_live(metadata).unwrap_or_else(|error| {
            tracing::warn!(target: SCOPE, "rabbitmq pub/sub: publishing to {topic} failed to parse TryGetTTL: {error}, it is ignored.");
            None
        });
        let mut properties = BasicProperties::default();
        if let Some(ttl) = ttl.or(self.ttl) {
            properties = properties.with_expiration(ttl.as_millis().to_string().into());
        }
        if self.delivery_mode > 0 {
            properties = properties.with_delivery_mode(self.delivery_mode);
        }
        message(properties, metadata)
    }

    async fn attempt(&self, request: &PublishRequest) -> Result<(), Error> {
        let session = self.link.session(self.options.reconnect_wait).await?;
        let publisher = session.publisher().await?;
        let topic = &request.topic;
        if !publisher.has_declared(topic) {
            let (kind, durable) = (self.options.kind.clone(), self.options.durable);
            self.options
                .declare_exchange(&publisher.channel, topic, kind, durable)
                .await?;
            publisher.declared(topic);
        }
        let routing_key = request
            .metadata
            .get("routingKey")
            .map_or("", String::as_str);
        let properties = self.properties(topic, &request.metadata)?;
        publisher
            .publish(name(topic)?, name(routing_key)?, &request.data, properties)
            .await
    }
}

/// Adds what the metadata of a message say about it.
pub fn message(
    mut properties: BasicProperties,
    metadata: &Pairs,
) -> Result<BasicProperties, Error> {
    let find = |wanted: &str| {
        let mut pairs = metadata.iter().filter(|(_, value)| !value.is_empty());
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    };
    let content_type = find("contentType").unwrap_or("text/plain");
    properties = properties.with_content_type(name(content_type)?);
    if let Some(id) = find("messageID") {
        properties = properties.with_message_id(name(id)?);
    }
    if let Some(id) = find("correlationID") {
        properties = properties.with_correlation_id(name(id)?);
    }
    if let Some(text) = find("type") {
        properties = properties.with_type(name(text)?);
    }
    if let Some(text) = find("priority") {
        let number: u64 = text.parse().map_err(|_| {
            let quoted = outrider_kit::quote::go(text);
            Error::invalid(format!(
                "strconv.ParseUint: parsing {quoted}: invalid syntax"
            ))
        })?;
        properties = properties.with_priority(u8::try_from(number).unwrap_or(u8::MAX));
    }
    Ok(properties)
}

#[async_trait]
impl Broker for Rabbitmq {
    fn features(&self) -> &[Feature] {
        &[Feature::MessageTtl]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
        self.link.check_open()?;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(request).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if attempt >= ATTEMPTS || error.kind() == Kind::Invalid {
                return Err(error);
            }
            tracing::warn!(target: SCOPE, "rabbitmq pub/sub: publishing attempt ({attempt}/{ATTEMPTS}) failed: {error}");
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        self.link.check_open()?;
        let subscription = Subscription::new(self.link.closed());
        let reader = subscribe::Reader::new(self.options.clone(), request, handler)?;
        reader.start(subscription, self.link.sessions()).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.link.session(Duration::ZERO).await.map(drop)
    }

    async fn close(&self) -> Result<(), Error> {
        self.link.close().await;
        Ok(())
    }
}
