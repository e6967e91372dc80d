//! `bindings.mqtt3`: <https://docs.dapr.io/reference/components-reference/supported-bindings/mqtt3/>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::bindings::{
    Answer, Binding, CREATE, Directions, Event, Failure, Handler, Input, Output, Request,
    Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata, Pairs, Secret};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Incoming};
use crate::settings::{Pem, Settings};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
/// Events that are handled at a time.
const ROOM: usize = 100;
const QOS: u8 = 1;
const PAUSE: Duration = Duration::from_secs(5);

outrider_components::fields! {
    struct Fields {
        /// `mqtt://user:password@host:port`, or `mqtts` for TLS.
        "url" => url: Secret, missing "missing url";
        /// The topic that is read, and that events go to without a topic of
        /// their own.
        "topic" => topic: String, missing "missing topic";
        /// What the ids of the clients at the server start with.
        "consumerID" => consumer: String, missing "missing consumerID";
        /// Accepted and ignored; it is always 1.
        "qos" => qos: Option<String>;
        /// Whether the server keeps the last event of a topic for those who
        /// subscribe later.
        "retain" => retain: bool = "false";
        /// Whether the server forgets what was not read when the connection
        /// ends.
        "cleanSession" => clean_session: bool = "false";
        /// Attempts to handle an event after the first, 5s apart; negative
        /// means any number. One that fails is not acknowledged.
        "backOffMaxRetries" => max_retries: i64 = "0";
        /// Certificates that sign that of the server, in PEM.
        "caCert" => authority: Option<String>;
        /// Client certificate, in PEM.
        "clientCert" => certificate: Option<String>;
        /// Key of the client certificate, in PEM.
        "clientKey" => key: Option<Secret>;
    }
}

struct Mqtt {
    settings: Settings,
    consumer: String,
    topic: String,
    retain: bool,
    max_retries: Option<u64>,
    /// Made when it is first used.
    producer: OnceCell<Client>,
    closed: CancellationToken,
}

/// Reads the fields. Each side connects when it is used.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let fields = Fields::read(&metadata)?;
    if fields.qos.is_some() {
        tracing::warn!(target: SCOPE, "Metadata property 'qos' has been deprecated and is ignored; qos is set to 1");
    }
    let pem = Pem {
        authority: fields.authority,
        certificate: fields.certificate,
        key: fields.key,
    };
    let mut settings = Settings::new(&fields.url.0, &pem)?;
    settings.clean_session = fields.clean_session;
    let mqtt = Arc::new(Mqtt {
        settings,
        consumer: fields.consumer,
        topic: fields.topic,
        retain: fields.retain,
        max_retries: u64::try_from(fields.max_retries).ok(),
        producer: OnceCell::new(),
        closed: CancellationToken::new(),
    });
    let wanted = Directions::of(&metadata);
    Ok(Arc::new(Binding {
        input: wanted.input.then(|| mqtt.clone() as _),
        output: wanted.output.then_some(mqtt as _),
    }))
}

impl Mqtt {
    async fn client(&self, side: &str) -> Result<Client, Error> {
        let mut settings = self.settings.clone();
        settings.client_id = format!("{}-{side}", self.consumer);
        Client::connect(settings, ROOM)
            .await
            .map_err(|error| error.context("failed to connect"))
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::new(Kind::Precondition, "error: binding is closed"));
        }
        Ok(())
    }

    async fn end(&self) {
        self.closed.cancel();
        if let Some(producer) = self.producer.get() {
            producer.close().await;
        }
    }
}

#[async_trait]
impl Output for Mqtt {
    fn operations(&self) -> Vec<&str> {
        vec![CREATE]
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        self.check_open()?;
        let producer = self
            .producer
            .get_or_try_init(|| self.client("producer"))
            .await
            .map_err(|error| error.context("failed to create producer connection"))?;
        let given = request
            .metadata
            .get("topic")
            .filter(|topic| !topic.is_empty());
        let topic = given.unwrap_or(&self.topic);
        producer
            .publish(topic, request.data.clone(), QOS, self.retain)
            .await
            .map_err(|error| error.context("failed to publish"))?;
        Ok(None)
    }

    async fn close(&self) -> Result<(), Error> {
        self.end().await;
        Ok(())
    }
}

#[async_trait]
impl Input for Mqtt {
    async fn read(&self, handler: Arc<dyn Handler>) -> Result<Subscription, Error> {
        self.check_open()?;
        let consumer = self.client("consumer").await?;
        let mut messages = consumer.subscribe(&self.topic, QOS).await?;
        tracing::info!(target: SCOPE, "Subscribing to topic {} (qos: {QOS})", self.topic);
        let mut subscription = Subscription::new(&self.closed);
        let stopping = subscription.stopping();
        let max_retries = self.max_retries;
        subscription.spawn(async move {
            let mut handling = JoinSet::new();
            loop {
                while handling.try_join_next().is_some() {}
                let message = tokio::select! {
                    biased;
                    () = stopping.cancelled() => break,
                    message = messages.recv() => message,
                };
                let Some(message) = message else { break };
                let stopping = stopping.clone();
                handling.spawn(handle(handler.clone(), message, max_retries, stopping));
            }
            while handling.join_next().await.is_some() {}
            consumer.close().await;
        });
        Ok(subscription)
    }

    async fn close(&self) -> Result<(), Error> {
        self.end().await;
        Ok(())
    }
}

async fn handle(
    handler: Arc<dyn Handler>,
    message: Incoming,
    max_retries: Option<u64>,
    stopping: CancellationToken,
) {
    let publish = &message.publish;
    let mut failures = 0;
    loop {
        let event = Event {
            data: publish.payload.clone(),
            metadata: Pairs::from([("topic".to_owned(), publish.topic.clone())]),
            content_type: None,
        };
        let Err(error) = handler.handle(event).await else {
            message.acknowledge();
            return;
        };
        let (topic, id) = (&publish.topic, publish.id);
        if max_retries.is_some_and(|most| failures >= most) {
            tracing::error!(target: SCOPE, "Failed processing MQTT message: {topic}/{id}: {error}");
            return;
        }
        tracing::error!(target: SCOPE, "Error processing MQTT message: {topic}/{id}. Retrying…");
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stopping.cancelled() => return,
        }
    }
}
