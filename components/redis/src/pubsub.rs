//! `pubsub.redis`: <https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-redis-pubsub/>.
//!
//! A topic is a stream, an application a consumer group of it; every instance
//! of the application reads under the group's name. A message whose handler
//! fails, or takes longer than `processingTimeout`, stays pending and is claimed
//! again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::pubsub::{
    Broker, Feature, Handler, Message, PublishRequest, SubscribeRequest, Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata, Milliseconds, Pairs};
use redis::streams::{StreamId, StreamPendingCountReply, StreamReadReply};
use redis::{FromRedisValue, Value};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::server::{FromRedis, Server};
use crate::settings::{self, Settings};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, settings::Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Name of the consumer group; the application's id if absent.
        "consumerID" => group: Option<String>;
        /// How long a message may be handled before it is delivered again. 0
        /// means that messages are never delivered again.
        "processingTimeout" => processing_timeout: Milliseconds = "60s";
        /// How often to look for messages to deliver again. 0 means never.
        "redeliverInterval" => redeliver_interval: Milliseconds = "15s";
        /// Messages of a subscription that are read ahead.
        "queueDepth" => queue_depth: u32 = "100";
        /// Messages that are handled at a time.
        "concurrency" => concurrency: u32 = "10";
        /// About how many messages a stream keeps; 0 means all.
        "maxLenApprox" => max_length: u64 = "0";
        /// About how long a stream keeps messages; 0 means for ever. Ignored
        /// with `maxLenApprox`.
        "streamTTL" => max_age: Duration = "0";
    }
}

/// How long one read waits for messages.
const BLOCK: Duration = Duration::from_secs(5);
const SCOPE: &str = "dapr.contrib";

struct Streams {
    shared: Arc<Shared>,
    max_length: Option<u64>,
    /// Older messages are trimmed when others are published.
    max_age: Option<Duration>,
    closed: CancellationToken,
}

struct Shared {
    server: Server,
    group: String,
    processing_timeout: Duration,
    redeliver_interval: Duration,
    /// Messages of one subscription that are in memory at a time.
    queue_depth: usize,
    /// Messages of all subscriptions that are being handled at a time.
    workers: Semaphore,
}

impl Shared {
    /// Whether messages that were not acknowledged are delivered again.
    fn redelivers(&self) -> bool {
        !self.processing_timeout.is_zero() && !self.redeliver_interval.is_zero()
    }

    async fn create_group(&self, topic: &str) -> Result<(), Error> {
        let create = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(topic)
            .arg(&self.group)
            .arg("0")
            .arg("MKSTREAM")
            .take();
        match self.server.call::<Value>(&create).await {
            Err(error) if error.code() != Some("BUSYGROUP") => {
                tracing::error!(target: SCOPE, "redis streams: {error}");
                Err(Error::from_redis(error))
            }
            _ => Ok(()),
        }
    }

    async fn acknowledge(&self, topic: &str, id: &str) {
        let acknowledge = redis::cmd("XACK")
            .arg(topic)
            .arg(&self.group)
            .arg(id)
            .take();
        if let Err(error) = self.server.call::<Value>(&acknowledge).await {
            tracing::error!(target: SCOPE, "Error acknowledging Redis message {id}: {error}");
        }
    }
}

/// Connects to the server.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Broker>, Error> {
    let settings = Arc::new(Settings::new(&metadata)?);
    let fields = Fields::read(&metadata)?;
    let queue_depth = fields.queue_depth.max(1);
    let concurrency = fields.concurrency.max(1);
    let max_length = Some(fields.max_length).filter(|length| *length > 0);
    let max_age = Some(fields.max_age).filter(|age| !age.is_zero());
    if max_length.is_some() && max_age.is_some() {
        tracing::warn!(target: SCOPE, "redis streams: maxLenApprox and streamTTL cannot be used together; only one stream trimming strategy can be active at a time.");
    }
    let server = Server::new(settings)?;
    ping(&server, "redis streams").await?;
    Ok(Arc::new(Streams {
        shared: Arc::new(Shared {
            server,
            group: fields.group.unwrap_or(context.app_id),
            processing_timeout: fields.processing_timeout.0,
            redeliver_interval: fields.redeliver_interval.0,
            queue_depth: queue_depth as usize,
            workers: Semaphore::new(concurrency as usize),
        }),
        max_length,
        max_age,
        closed: CancellationToken::new(),
    }))
}

async fn ping(server: &Server, caller: &str) -> Result<(), Error> {
    server.ping().await.map_err(|error| {
        let host = &server.settings().host;
        Error::from_redis(error).context(&format!("{caller}: error connecting to redis at {host}"))
    })
}

impl Streams {
    fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::new(Kind::Precondition, "component is closed"));
        }
        Ok(())
    }
}

#[async_trait]
impl Broker for Streams {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
        self.check_open()?;
        let mut add = redis::cmd("XADD");
        add.arg(&request.topic);
        if let Some(length) = self.max_length {
            let length: u64 = length;
            add.arg("MAXLEN").arg("~").arg(length);
        } else if let Some(max_age) = self.max_age {
            let oldest = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .saturating_sub(max_age)
                .as_millis();
            add.arg("MINID").arg("~").arg(format!("{oldest}-1"));
        }
        add.arg("*").arg("data").arg(&request.data[..]);
        if !request.metadata.is_empty() {
            let sorted: BTreeMap<_, _> = request.metadata.iter().collect();
            let text = serde_json::to_string(&sorted)
                .map_err(|error| Error::invalid(error.to_string()))?;
            add.arg("metadata").arg(text);
        }
        self.shared
            .server
            .call::<Value>(&add)
            .await
            .map(drop)
            .map_err(|error| {
                Error::unavailable(format!("redis streams: error from publish: {error}"))
                    .because(error)
            })
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        self.check_open()?;
        self.shared.create_group(&request.topic).await?;
        let mut subscription = Subscription::new(&self.closed);
        let reader = Arc::new(Reader {
            shared: self.shared.clone(),
            topic: request.topic,
            handler,
            room: Arc::new(Semaphore::new(self.shared.queue_depth)),
            in_flight: Arc::default(),
            stopping: subscription.stopping(),
        });
        let server = self.shared.server.blocking(BLOCK)?;
        subscription.spawn(reader.clone().read_new(server));
        if self.shared.redelivers() {
            subscription.spawn(reader.claim_pending());
        }
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        ping(&self.shared.server, "redis pubsub").await
    }

    async fn close(&self) -> Result<(), Error> {
        self.closed.cancel();
        Ok(())
    }
}

/// A message as the stream holds it.
struct Entry {
    id: String,
    fields: HashMap<String, Value>,
}

impl From<StreamId> for Entry {
    fn from(entry: StreamId) -> Entry {
        Entry {
            id: entry.id,
            fields: entry.map,
        }
    }
}

/// One subscription.
struct Reader {
    shared: Arc<Shared>,
    topic: String,
    handler: Arc<dyn Handler>,
    /// A permit for each message that fits into memory.
    room: Arc<Semaphore>,
    /// Ids of the messages in memory, which this reader must not claim.
    in_flight: Arc<Mutex<HashSet<String>>>,
    stopping: CancellationToken,
}

/// Removes an id from [`Reader::in_flight`] when it is dropped.
struct InFlight {
    id: String,
    ids: Arc<Mutex<HashSet<String>>>,
}

impl InFlight {
    /// `None` if the id is there already.
    fn new(all: &Arc<Mutex<HashSet<String>>>, id: &str) -> Option<InFlight> {
        let mut ids = all.lock().unwrap_or_else(|e| e.into_inner());
        ids.insert(id.to_owned()).then(|| InFlight {
            id: id.to_owned(),
            ids: all.clone(),
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut ids = self.ids.lock().unwrap_or_else(|e| e.into_inner());
        ids.remove(&self.id);
    }
}

impl Reader {
    async fn read_new(self: Arc<Reader>, server: Server) {
        let mut handling = JoinSet::new();
        let mut failures = 0;
        while !self.stopping.is_cancelled() {
            let read = tokio::select! {
                read = self.read(&server) => read,
                () = self.stopping.cancelled() => break,
            };
            match read {
                Ok(messages) => {
                    failures = 0;
                    self.deliver(messages, &mut handling).await;
                }
                Err(error) => {
                    self.read_failed(&error).await;
                    self.back_off(failures).await;
                    failures += 1;
                }
            }
        }
        while handling.join_next().await.is_some() {}
    }

    /// Waits for room, then for messages to fill it with.
    async fn read(&self, server: &Server) -> redis::RedisResult<Vec<Entry>> {
        let Ok(room) = self.room.acquire().await else {
            return Ok(Vec::new());
        };
        let count = 1 + self.room.available_permits();
        drop(room);
        let group = &self.shared.group;
        let read = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(group)
            .arg(group)
            .arg("COUNT")
            .arg(count)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.topic)
            .arg(">")
            .take();
        let reply: Option<StreamReadReply> = server.call(&read).await?;
        Ok(reply
            .into_iter()
            .flat_map(|reply| reply.keys)
            .flat_map(|stream| stream.ids)
            .map(Entry::from)
            .collect())
    }

    async fn read_failed(&self, error: &redis::RedisError) {
        let (group, topic) = (&self.shared.group, &self.topic);
        if error.code() == Some("NOGROUP") {
            tracing::warn!(target: SCOPE, "redis streams: consumer group {group} does not exist for stream {topic}. This could mean the server experienced data loss, or the group/stream was deleted.");
            tracing::warn!(target: SCOPE, "redis streams: recreating group {group} for stream {topic}");
            // A failure has been logged, and the next read tries again.
            let _ = self.shared.create_group(topic).await;
        }
        tracing::error!(target: SCOPE, "redis streams: error reading from stream {topic}: {error}");
    }

    /// Waits from 10 ms to about 5 s, longer with each failure.
    async fn back_off(&self, failures: u32) {
        let wait = Duration::from_millis(10 << failures.min(9));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// Starts handling messages in their order, each when there is room.
    async fn deliver(self: &Arc<Reader>, messages: Vec<Entry>, handling: &mut JoinSet<()>) {
        for message in messages {
            while handling.try_join_next().is_some() {}
            let Some(in_flight) = InFlight::new(&self.in_flight, &message.id) else {
                continue;
            };
            let room = tokio::select! {
                room = self.room.clone().acquire_owned() => room,
                () = self.stopping.cancelled() => return,
            };
            let reader = self.clone();
            handling.spawn(async move {
                reader.handle(message).await;
                drop((in_flight, room));
            });
        }
    }

    async fn handle(&self, message: Entry) {
        let _worker = tokio::select! {
            biased;
            // A message whose handling has not begun is claimed by another
            // reader.
            () = self.stopping.cancelled() => return,
            worker = self.shared.workers.acquire() => worker,
        };
        let id = message.id.clone();
        let handled = self.handler.handle(self.decode(message));
        let result = if self.shared.redelivers() {
            match tokio::time::timeout(self.shared.processing_timeout, handled).await {
                Ok(result) => result,
                Err(_) => Err(Error::unavailable("context deadline exceeded")),
            }
        } else {
            handled.await
        };
        match result {
            Ok(()) => self.shared.acknowledge(&self.topic, &id).await,
            Err(error) => {
                tracing::error!(target: SCOPE, "Error processing Redis message {id}: {error}");
            }
        }
    }

    fn decode(&self, message: Entry) -> Message {
        let Entry { id, mut fields } = message;
        let data = fields
            .remove("data")
            .and_then(|value| Bytes::from_redis_value(value).ok())
            .unwrap_or_default();
        let metadata = fields.remove("metadata").map_or_else(Pairs::new, |value| {
            let text = String::from_redis_value(value).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::warn!(target: SCOPE, "Redis PubSub: Could not extract metadata for Redis message {id}: {error}");
                Pairs::new()
            })
        });
        Message {
            topic: self.topic.clone(),
            data,
            metadata,
            content_type: None,
        }
    }

    async fn claim_pending(self: Arc<Reader>) {
        let mut handling = JoinSet::new();
        while !self.stopping.is_cancelled() {
            tokio::select! {
                claimed = self.claim(&mut handling) => if let Err(error) = claimed {
                    tracing::error!(target: SCOPE, "error retrieving pending Redis messages: {error}");
                },
                () = self.stopping.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(self.shared.redeliver_interval) => {}
                () = self.stopping.cancelled() => break,
            }
        }
        while handling.join_next().await.is_some() {}
    }

    /// Claims and delivers all messages that have been pending for longer than
    /// `processingTimeout`.
    async fn claim(self: &Arc<Reader>, handling: &mut JoinSet<()>) -> redis::RedisResult<()> {
        let Shared {
            server,
            group,
            processing_timeout,
            queue_depth,
            ..
        } = &*self.shared;
        let mut from = "-".to_owned();
        loop {
            let pending = redis::cmd("XPENDING")
                .arg(&self.topic)
                .arg(group)
                .arg(&from)
                .arg("+")
                .arg(*queue_depth)
                .take();
            let pending: StreamPendingCountReply = server.call(&pending).await?;
            let late: Vec<&str> = {
                let in_flight = self.in_flight.lock().unwrap_or_else(|e| e.into_inner());
                pending
                    .ids
                    .iter()
                    .filter(|entry| {
                        entry.last_delivered_ms as u128 >= processing_timeout.as_millis()
                    })
                    .filter(|entry| !in_flight.contains(&entry.id))
                    .map(|entry| entry.id.as_str())
                    .collect()
            };
            if !late.is_empty() {
                let claim = redis::cmd("XCLAIM")
                    .arg(&self.topic)
                    .arg(group)
                    .arg(group)
                    .arg(processing_timeout.as_millis() as u64)
                    .arg(&late)
                    .take();
                // Servers before version 7 put nil where an entry is gone.
                let claimed: Vec<Option<(String, HashMap<String, Value>)>> =
                    server.call(&claim).await?;
                let claimed: Vec<Entry> = claimed
                    .into_iter()
                    .flatten()
                    .map(|(id, fields)| Entry { id, fields })
                    .collect();
                for id in late {
                    if !claimed.iter().any(|message| message.id == id) {
                        self.acknowledge_if_trimmed(id).await?;
                    }
                }
                self.deliver(claimed, handling).await;
            }
            let Some(last) = pending
                .ids
                .last()
                .filter(|_| pending.ids.len() >= *queue_depth)
            else {
                return Ok(());
            };
            from = next_id(&last.id);
        }
    }

    /// Acknowledges a message that the stream does not have any more.
    async fn acknowledge_if_trimmed(&self, id: &str) -> redis::RedisResult<()> {
        let range = redis::cmd("XRANGE").arg(&self.topic).arg(id).arg(id).take();
        let found: Vec<Value> = self.shared.server.call(&range).await?;
        if found.is_empty() {
            self.shared.acknowledge(&self.topic, id).await;
        }
        Ok(())
    }
}

/// The smallest id above `id`.
fn next_id(id: &str) -> String {
    match id.split_once('-') {
        Some((time, count)) => {
            let count: u64 = count.parse().unwrap_or(0);
            format!("{time}-{}", count.saturating_add(1))
        }
        None => format!("{id}-1"),
    }
}

#[cfg(test)]
mod tests {
    use super::next_id;

    #[test]
    fn the_next_id_has_the_next_number() {
        assert_eq!(next_id("1700000000000-0"), "1700000000000-1");
        assert_eq!(next_id("1700000000000-41"), "1700000000000-42");
    }
}
