//! The connection over which the server tells what has changed.
//! <https://redis.io/docs/latest/develop/use/keyspace-notifications/>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use outrider_components::Error;
use outrider_components::configuration::Changes;
use outrider_components::configuration::listener::{Attempts, Listener, Order, Orders};
use redis::aio::PubSubSink;
use redis::{Msg, RedisResult, cmd};
use tokio::sync::mpsc;

use super::{CHUNK, SCOPE, Values};

/// Events of keys (`K`) that matter: general commands, strings, expiry and
/// eviction.
const EVENTS: &str = "Kg$xe";
/// How often is looked whether the server still answers, and how long it may
/// take for anything.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Who listens to changes, and the task that serves them.
pub struct Watch {
    shared: Arc<Shared>,
    task: Listener<Channels>,
}

struct Shared {
    values: Arc<Values>,
    /// The beginning of the names of channels.
    prefix: String,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_key: HashMap<String, Vec<Arc<Changes>>>,
    all: Vec<Arc<Changes>>,
}

#[derive(Default)]
struct Channels {
    keys: Vec<String>,
    all: bool,
}

/// A listener that is served until this is dropped.
pub struct Watched {
    listener: Arc<Changes>,
    shared: Weak<Shared>,
    orders: Orders<Channels>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let channels = shared.table().remove(&self.listener);
            self.orders.remove(channels);
        }
    }
}

impl Watch {
    pub fn new(values: Arc<Values>) -> Self {
        let prefix = format!("__keyspace@{}__:", values.server.settings().database);
        Self {
            shared: Arc::new(Shared {
                values,
                prefix,
                table: Mutex::default(),
            }),
            task: Listener::default(),
        }
    }

    /// Serves a listener. Returns when the server has confirmed it, or does not
    /// answer; then it is served once the server does.
    pub async fn add(&self, listener: &Arc<Changes>) -> Result<Watched, Error> {
        let shared = self.shared.clone();
        let orders = self.task.orders(|received| shared.run(received));
        let watched = Watched {
            listener: listener.clone(),
            shared: Arc::downgrade(&self.shared),
            orders: orders.clone(),
        };
        let channels = self.shared.table().add(listener);
        if !orders.add(channels).await? {
            let host = &self.shared.values.server.settings().host;
            tracing::warn!(target: SCOPE, "redis at {host} has not confirmed a subscription yet: changes arrive when it does");
        }
        Ok(watched)
    }

    pub fn close(&self) {
        self.task.close();
    }
}

impl Table {
    /// Adds a listener. Returns the channels that nobody listened to before.
    fn add(&mut self, listener: &Arc<Changes>) -> Channels {
        let mut channels = Channels::default();
        let Some(keys) = listener.keys() else {
            channels.all = self.all.is_empty();
            self.all.push(listener.clone());
            return channels;
        };
        for key in keys {
            let listeners = self.by_key.entry(key.clone()).or_default();
            if listeners.is_empty() {
                channels.keys.push(key.clone());
            }
            listeners.push(listener.clone());
        }
        channels
    }

    /// Removes a listener. Returns the channels that nobody listens to now.
    fn remove(&mut self, listener: &Arc<Changes>) -> Channels {
        let mut channels = Channels::default();
        let is_other = |other: &Arc<Changes>| !Arc::ptr_eq(other, listener);
        let Some(keys) = listener.keys() else {
            self.all.retain(is_other);
            channels.all = self.all.is_empty();
            return channels;
        };
        for key in keys {
            if let Some(listeners) = self.by_key.get_mut(key) {
                listeners.retain(is_other);
                if listeners.is_empty() {
                    self.by_key.remove(key);
                    channels.keys.push(key.clone());
                }
            }
        }
        channels
    }

    /// All channels that somebody listens to.
    fn channels(&self) -> Channels {
        Channels {
            keys: self.by_key.keys().cloned().collect(),
            all: !self.all.is_empty(),
        }
    }
}

/// What the server answers, unless it does not in time.
async fn in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Listens for as long as the store is open.
    async fn run(self: Arc<Self>, mut orders: mpsc::UnboundedReceiver<Order<Channels>>) {
        let mut attempts = Attempts::default();
        loop {
            let (is_first, mut confirmed) = (attempts.is_first(), false);
            let ended = self.listen(&mut orders, is_first, &mut confirmed).await;
            let Err(error) = ended else { return };
            let host = &self.values.server.settings().host;
            tracing::warn!(target: SCOPE, "cannot listen to changes of redis at {host}, trying again: {error}");
            attempts.pause(confirmed).await;
        }
    }

    /// Listens over one connection until it breaks. `confirmed` is set when the
    /// server has confirmed all channels.
    async fn listen(
        &self,
        orders: &mut mpsc::UnboundedReceiver<Order<Channels>>,
        is_first: bool,
        confirmed: &mut bool,
    ) -> RedisResult<()> {
        let server = &self.values.server;
        let enabling = cmd("CONFIG")
            .arg("SET")
            .arg("notify-keyspace-events")
            .arg(EVENTS)
            .take();
        if let Err(error) = server.call::<()>(&enabling).await
            && is_first
        {
            tracing::warn!(target: SCOPE, "cannot set notify-keyspace-events of redis to {EVENTS}; changes arrive if its own configuration says so: {error}");
        }
        let (mut sink, mut messages) = server.pubsub().await?.split();
        let all = self.table().channels();
        self.subscribe(&mut sink, &all).await?;
        *confirmed = true;
        if !is_first {
            self.missed().await;
        }
        let mut pings = tokio::time::interval(PING_INTERVAL);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.receive(&message),
                    None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                },
                order = orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Add(channels, done)) => {
                        self.subscribe(&mut sink, &channels).await?;
                        let _ = done.send(());
                    }
                    Some(Order::Remove(channels)) => {
                        self.unsubscribe(&mut sink, channels).await?;
                    }
                },
                _ = pings.tick() => {
                    in_time(sink.ping::<redis::Value>()).await?;
                }
            }
        }
    }

    fn channels(&self, keys: &[String]) -> Vec<String> {
        let prefix = &self.prefix;
        keys.iter().map(|key| format!("{prefix}{key}")).collect()
    }

    async fn subscribe(&self, sink: &mut PubSubSink, channels: &Channels) -> RedisResult<()> {
        for keys in channels.keys.chunks(CHUNK) {
            in_time(sink.subscribe(self.channels(keys))).await?;
        }
        if channels.all {
            in_time(sink.psubscribe(format!("{}*", self.prefix))).await?;
        }
        Ok(())
    }

    /// Ends what nobody listens to; somebody new may do so by now.
    async fn unsubscribe(&self, sink: &mut PubSubSink, mut channels: Channels) -> RedisResult<()> {
        {
            let table = self.table();
            channels.keys.retain(|key| !table.by_key.contains_key(key));
            channels.all &= table.all.is_empty();
        }
        for keys in channels.keys.chunks(CHUNK) {
            in_time(sink.unsubscribe(self.channels(keys))).await?;
        }
        if channels.all {
            in_time(sink.punsubscribe(format!("{}*", self.prefix))).await?;
        }
        Ok(())
    }

    /// Passes an event to those who listen to its key.
    fn receive(&self, message: &Msg) {
        let channel = message.get_channel_name();
        let Some(key) = channel.strip_prefix(self.prefix.as_str()) else {
            return;
        };
        let table = self.table();
        let listeners = match message.from_pattern() {
            true => Some(&table.all),
            false => table.by_key.get(key),
        };
        for listener in listeners.into_iter().flatten() {
            listener.changed(key);
        }
    }

    /// Any key may have changed while there was no connection.
    async fn missed(&self) {
        let has_all = {
            let table = self.table();
            for (key, listeners) in &table.by_key {
                listeners.iter().for_each(|listener| listener.changed(key));
            }
            !table.all.is_empty()
        };
        if !has_all {
            return;
        }
        match self.values.keys().await {
            Ok(keys) => {
                let table = self.table();
                for key in &keys {
                    table.all.iter().for_each(|listener| listener.changed(key));
                }
            }
            Err(error) => {
                tracing::warn!(target: SCOPE, "subscriptions to all keys may have missed changes: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_those_of_the_first_and_the_last_listener() {
        let listener = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            Arc::new(Changes::new(&keys))
        };
        let mut table = Table::default();
        let (one, two) = (listener(&["a"]), listener(&["b", "a"]));
        assert_eq!(table.add(&one).keys, ["a"]);
        assert_eq!(table.add(&two).keys, ["b"]);
        assert!(table.remove(&one).keys.is_empty());
        let mut last = table.remove(&two).keys;
        last.sort();
        assert_eq!(last, ["a", "b"]);
        assert!(table.by_key.is_empty());
        let all = listener(&[]);
        assert!(table.add(&all).all && !table.add(&listener(&[])).all);
        assert!(!table.remove(&all).all);
    }
}
