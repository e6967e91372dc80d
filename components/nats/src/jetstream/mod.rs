//! `pubsub.jetstream`: <https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-jetstream/>.
//!
//! A topic is a subject of a stream, which has to exist. A subscription is a
//! push consumer of the stream; with `durableName` the server remembers what it
//! has read.

mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context as Jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::{Client, ConnectOptions, HeaderMap};
use async_trait::async_trait;
use outrider_components::pubsub::{
    Broker, Feature, Handler, PublishRequest, SubscribeRequest, Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata, Secret};
use tokio_util::sync::CancellationToken;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
/// How long the server may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// How often an idle consumer shows that it is there, where the component says
/// nothing. One that does not is made again.
const HEARTBEAT: Duration = Duration::from_secs(5);

outrider_components::fields! {
    struct Fields {
        /// URLs of the servers, separated by commas.
        "natsURL" => url: Secret, missing "missing nats URL";
        /// JWT of the user. Needs `seedKey`.
        "jwt" => jwt: Option<Secret>;
        /// Seed of the user's key. Needs `jwt`.
        "seedKey" => seed: Option<Secret>;
        /// Token, where there is neither a JWT nor a certificate.
        "token" => token: Option<Secret>;
        /// Path of the client certificate. Needs `tls_client_key`.
        "tls_client_cert" => certificate: Option<String>;
        /// Path of the key of the client certificate.
        "tls_client_key" => key: Option<String>;
        /// The connection's name at the server.
        "name" => name: String = "dapr.io - pubsub.jetstream";
        /// The stream; the one with the topic's subject if absent.
        "streamName" => stream: Option<String>;
        /// Name of the consumer, which the server then remembers.
        "durableName" => durable: Option<String>;
        /// The instances with this name share the messages.
        "queueGroupName" => group: Option<String>;
        /// The first message, with the deliver policy `sequence`.
        "startSequence" => start_sequence: u64 = "0";
        /// Seconds since 1970 of the first message, with the deliver policy
        /// `time`.
        "startTime" => start_time: Option<i64>;
        /// Whether the server waits for slow consumers.
        "flowControl" => flow_control: bool = "false";
        /// After how long a message that was not acknowledged comes again.
        "ackWait" => ack_wait: Option<Duration>;
        /// How often a message is delivered at most; 0 means any number.
        "maxDeliver" => max_deliver: i64 = "0";
        /// Messages that are handled at a time; 0 leaves it to the server.
        "maxAckPending" => max_ack_pending: i64 = "0";
        /// Servers that keep the consumer's state; 0 leaves it to the stream.
        "replicas" => replicas: u64 = "0";
        /// Whether the consumer's state is in memory only.
        "memoryStorage" => memory_storage: bool = "false";
        /// Bits per second at most; 0 means any number.
        "rateLimit" => rate_limit: u64 = "0";
        /// How often an idle consumer shows that it is there; 5s if absent.
        "heartbeat" => heartbeat: Option<Duration>;
        /// `all`, `last`, `new`, `sequence` or `time`: where a consumer begins.
        "deliverPolicy" => deliver_policy: String = "all";
        /// `explicit`, `all` or `none`.
        "ackPolicy" => ack_policy: String = "explicit";
        /// JetStream domain.
        "domain" => domain: Option<String>;
        /// Prefix of the subjects of JetStream's API.
        "apiPrefix" => api_prefix: Option<String>;
        /// `single` or `parallel`: whether one message waits for the one before.
        "concurrencyMode" | "concurrency" => concurrency: String = "single";
        /// How long to wait before a message that was not acknowledged comes
        /// again, for each time; durations separated by commas.
        "backOff" => back_off: Option<String>;
    }
}

struct Nats {
    client: Client,
    jetstream: Jetstream,
    options: Arc<Options>,
    closed: CancellationToken,
}

/// How consumers are made and read.
struct Options {
    stream: Option<String>,
    /// Without deliver and filter subject.
    consumer: push::Config,
    in_order: bool,
    /// How long a message waits after a failure.
    nak_delay: Duration,
}

impl Fields {
    fn connect_options(&self) -> Result<ConnectOptions, Error> {
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .request_timeout(Some(ANSWERED_WITHIN));
        match (&self.jwt, &self.seed, &self.certificate, &self.key) {
            (Some(_), None, ..) => return Err(Error::invalid("missing seed key")),
            (None, Some(_), ..) => return Err(Error::invalid("missing jwt")),
            (_, _, Some(_), None) => return Err(Error::invalid("missing tls client key")),
            (_, _, None, Some(_)) => return Err(Error::invalid("missing tls client cert")),
            (Some(jwt), Some(seed), ..) => {
                let credentials = format!(
                    "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
                    -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                    jwt.0, seed.0
                );
                options = options
                    .credentials(&credentials)
                    .map_err(|_| Error::invalid("invalid jwt or seed key"))?;
            }
            (None, None, Some(certificate), Some(key)) => {
                options = options.add_client_certificate(certificate.into(), key.into());
            }
            (None, None, None, None) => {
                if let Some(token) = &self.token {
                    options = options.token(token.0.clone());
                }
            }
        }
        Ok(options)
    }

    fn options(self) -> Result<Options, Error> {
        let deliver_policy = match &*self.deliver_policy {
            "all" => DeliverPolicy::All,
            "last" => DeliverPolicy::Last,
            "new" => DeliverPolicy::New,
            "sequence" => DeliverPolicy::ByStartSequence {
                start_sequence: self.start_sequence,
            },
            "time" => {
                let seconds = self.start_time.unwrap_or(0);
                let start_time = time::OffsetDateTime::from_unix_timestamp(seconds)
                    .map_err(|error| Error::invalid(format!("startTime: {error}")))?;
                DeliverPolicy::ByStartTime { start_time }
            }
            other => {
                return Err(Error::invalid(format!(
                    "deliver policy {other} is not one of: all, last, new, sequence, time"
                )));
            }
        };
        let ack_policy = match &*self.ack_policy {
            "all" => AckPolicy::All,
            "none" => AckPolicy::None,
            _ => AckPolicy::Explicit,
        };
        let in_order = match &*self.concurrency {
            "single" => true,
            "parallel" => false,
            other => {
                let text = format!("invalid concurrencyMode {other}");
                return Err(Error::invalid(text));
            }
        };
        let back_off = self.back_off.as_deref().unwrap_or_default();
        let back_off = back_off
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(|text| {
                outrider_components::FieldValue::parse(text)
                    .map_err(|what| Error::invalid(format!("property backOff {what}")))
            })
            .collect::<Result<Vec<Duration>, Error>>()?;
        let nonzero = |time: Option<Duration>| time.filter(|time| !time.is_zero());
        Ok(Options {
            stream: self.stream,
            nak_delay: nonzero(self.ack_wait).unwrap_or(Duration::from_secs(1)),
            consumer: push::Config {
                durable_name: self.durable,
                deliver_group: self.group,
                deliver_policy,
                ack_policy,
                ack_wait: self.ack_wait.unwrap_or_default(),
                max_deliver: self.max_deliver,
                max_ack_pending: self.max_ack_pending,
                num_replicas: usize::try_from(self.replicas).unwrap_or(usize::MAX),
                memory_storage: self.memory_storage,
                rate_limit: self.rate_limit,
                flow_control: self.flow_control,
                idle_heartbeat: nonzero(self.heartbeat).unwrap_or(HEARTBEAT),
                backoff: back_off,
                ..push::Config::default()
            },
            in_order,
        })
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable(outrider_kit::error::chain(&error)).because(error)
}

/// Connects to the servers.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Broker>, Error> {
    let fields = Fields::read(&metadata)?;
    let connect_options = fields.connect_options()?;
    let urls: Vec<String> = fields
        .url
        .0
        .split(',')
        .map(|url| url.trim().to_owned())
        .collect();
    let (domain, prefix) = (fields.domain.clone(), fields.api_prefix.clone());
    let options = fields.options()?;
    let client = connect_options.connect(urls).await.map_err(unavailable)?;
    let mut jetstream = match (domain, prefix) {
        (_, Some(prefix)) => {
            async_nats::jetstream::with_prefix(client.clone(), prefix.trim_end_matches('.'))
        }
        (Some(domain), None) => async_nats::jetstream::with_domain(client.clone(), domain),
        (None, None) => async_nats::jetstream::new(client.clone()),
    };
    jetstream.set_timeout(ANSWERED_WITHIN);
    Ok(Arc::new(Nats {
        client,
        jetstream,
        options: Arc::new(options),
        closed: CancellationToken::new(),
    }))
}

impl Nats {
    fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::new(Kind::Precondition, "component is closed"));
        }
        Ok(())
    }
}

/// The id of a CloudEvent, by which the server knows one that was sent before.
fn event_id(data: &[u8]) -> Option<String> {
    let event: serde_json::Value = serde_json::from_slice(data).ok()?;
    Some(event["id"].as_str()?.to_owned()).filter(|id| !id.is_empty())
}

#[async_trait]
impl Broker for Nats {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
        self.check_open()?;
        let mut headers = HeaderMap::new();
        match event_id(&request.data) {
            // A line break would be the end of the header.
            Some(id) if !id.contains(['\r', '\n']) => headers.insert("Nats-Msg-Id", id.as_str()),
            _ => {
                tracing::warn!(target: SCOPE, "empty message ID, Jetstream deduplication will not be possible");
            }
        }
        let (topic, data) = (request.topic.clone(), request.data.clone());
        let publishing = async {
            let sent = if headers.is_empty() {
                self.jetstream.publish(topic, data).await
            } else {
                self.jetstream
                    .publish_with_headers(topic, headers, data)
                    .await
            };
            sent.map_err(unavailable)?.await.map_err(unavailable)
        };
        match tokio::time::timeout(ANSWERED_WITHIN, publishing).await {
            Ok(published) => published.map(drop),
            Err(_) => Err(Error::unavailable("nats: timeout")),
        }
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        self.check_open()?;
        let stream = match &self.options.stream {
            Some(name) => name.clone(),
            None => self
                .jetstream
                .stream_by_subject(request.topic.as_str())
                .await
                .map_err(unavailable)?,
        };
        let reader = subscribe::Reader {
            jetstream: self.jetstream.clone(),
            options: self.options.clone(),
            stream,
            topic: request.topic,
            handler,
        };
        let messages = reader.consume(None).await?;
        let mut subscription = Subscription::new(&self.closed);
        let stopping = subscription.stopping();
        subscription.spawn(reader.run(messages, stopping));
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        match self.client.connection_state() {
            async_nats::connection::State::Connected => Ok(()),
            _ => Err(Error::unavailable("nats: not connected")),
        }
    }

    async fn close(&self) -> Result<(), Error> {
        self.closed.cancel();
        // What was acknowledged has to arrive.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.client.flush()).await;
        let _ = self.client.drain().await;
        Ok(())
    }
}
