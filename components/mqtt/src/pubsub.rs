//! `pubsub.mqtt3`: <https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-mqtt3/>.
//!
//! A message whose handler fails is not acknowledged, and is handled again
//! after a pause. The server keeps it meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::pubsub::{
    Broker, Feature, Handler, Message, PublishRequest, SubscribeRequest, Subscription,
};
use outrider_components::{Context, Error, Field, FieldValue, Metadata, Pairs, Secret};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Incoming};
use crate::settings::{Pem, Settings};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
/// Messages that are handled at a time.
const ROOM: usize = 100;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

outrider_components::fields! {
    struct Fields {
        /// `mqtt://user:password@host:port`, or `mqtts` for TLS.
        "url" => url: Secret, missing "missing url";
        /// The client's id at the server; the application's id if absent.
        "consumerID" => consumer: Option<String>;
        /// 0 delivers at most once, 1 at least once, 2 once.
        "qos" => qos: u16 = "1";
        /// Whether the server keeps the last message of a topic for those who
        /// subscribe later.
        "retain" => retain: bool = "false";
        /// Whether the server forgets subscriptions, and messages that were
        /// not read, when the connection ends.
        "cleanSession" => clean_session: bool = "false";
        /// Certificates that sign that of the server, in PEM.
        "caCert" => authority: Option<String>;
        /// Client certificate, in PEM.
        "clientCert" => certificate: Option<String>;
        /// Key of the client certificate, in PEM.
        "clientKey" => key: Option<Secret>;
    }
}

struct Mqtt {
    client: Client,
    qos: u8,
    retain: bool,
    clean_session: bool,
}

/// Connects to the server.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Broker>, Error> {
    let fields = Fields::read(&metadata)?;
    let qos = u8::try_from(fields.qos).ok().filter(|qos| *qos < 3);
    let qos = qos.ok_or_else(|| Error::invalid(format!("invalid qos {}", fields.qos)))?;
    let pem = Pem {
        authority: fields.authority,
        certificate: fields.certificate,
        key: fields.key,
    };
    let mut settings = Settings::new(&fields.url.0, &pem)?;
    settings.client_id = fields.consumer.unwrap_or(context.app_id);
    if settings.client_id.is_empty() {
        return Err(Error::invalid("missing consumerID"));
    }
    settings.clean_session = fields.clean_session;
    let client = Client::connect(settings, ROOM)
        .await
        .map_err(|error| error.context("failed to establish connection to broker"))?;
    Ok(Arc::new(Mqtt {
        client,
        qos,
        retain: fields.retain,
        clean_session: fields.clean_session,
    }))
}

#[async_trait]
impl Broker for Mqtt {
    fn features(&self) -> &[Feature] {
        &[Feature::SubscribeWildcards]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
        self.client.check_open()?;
        let retain = match request.metadata.get("retain").filter(|text| !text.is_empty()) {
            None => self.retain,
            Some(text) => bool::parse(text).map_err(|_| {
                let quoted = outrider_kit::quote::go(text);
                Error::invalid(format!(
                    "mqtt invalid retain {text}, strconv.ParseBool: parsing {quoted}: invalid syntax"
                ))
            })?,
        };
        self.client
            .publish(&request.topic, request.data.clone(), self.qos, retain)
            .await
            .map_err(|error| match error.kind() {
                outrider_components::Kind::Invalid => error,
                _ => error.context("failed to publish"),
            })
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        self.client.check_open()?;
        let topic = request.topic;
        let mut messages = self
            .client
            .subscribe(&topic, self.qos)
            .await
            .map_err(|error| error.context("mqtt error from subscribe"))?;
        tracing::info!(target: SCOPE, "MQTT is subscribed to topic {topic} (qos: {})", self.qos);
        let unsubscribe = self.clean_session
            || request
                .metadata
                .get("unsubscribeOnClose")
                .is_some_and(|text| outrider_kit::truthy(text));
        let leaver = self.client.leaver();
        let mut subscription = Subscription::new(self.client.closed());
        let stopping = subscription.stopping();
        subscription.spawn(async move {
            let mut handling = JoinSet::new();
            loop {
                while handling.try_join_next().is_some() {}
                let message = tokio::select! {
                    biased;
                    () = stopping.cancelled() => break,
                    message = messages.recv() => message,
                };
                // The server took the subscription back.
                let Some(message) = message else { break };
                handling.spawn(handle(handler.clone(), message, stopping.clone()));
            }
            messages.close();
            let mut left: Vec<Incoming> = Vec::new();
            while let Some(message) = messages.recv().await {
                left.push(message);
            }
            while let Some(ended) = handling.join_next().await {
                left.extend(ended.ok().flatten());
            }
            leaver.leave(topic, unsubscribe, left).await;
        });
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.client.ping()
    }

    async fn close(&self) -> Result<(), Error> {
        self.client.close().await;
        Ok(())
    }
}

/// Handles a message until that works; gives it back if it does not before the
/// end of the subscription.
async fn handle(
    handler: Arc<dyn Handler>,
    message: Incoming,
    stopping: CancellationToken,
) -> Option<Incoming> {
    let publish = &message.publish;
    let mut pause = FIRST_PAUSE;
    loop {
        let retained = publish.retain.to_string();
        let handled = handler
            .handle(Message {
                topic: publish.topic.clone(),
                data: publish.payload.clone(),
                metadata: Pairs::from([("retained".to_owned(), retained)]),
                content_type: None,
            })
            .await;
        let Err(error) = handled else {
            message.acknowledge();
            return None;
        };
        let (topic, id) = (&publish.topic, publish.id);
        tracing::error!(target: SCOPE, "Failed processing MQTT message {topic}#{id}: {error}");
        if publish.qos == 0 {
            return None;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return Some(message),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
