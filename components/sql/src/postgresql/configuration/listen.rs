//! The connection over which the server notifies.
//! <https://www.postgresql.org/docs/15/sql-notify.html>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use outrider_components::Error;
use outrider_components::configuration::Changes;
use outrider_components::configuration::listener::{Attempts, Listener, Order, Orders};
use serde_json::Value;
use sqlx::postgres::{PgListener, PgNotification};
use tokio::sync::mpsc;

use super::{Rows, SCOPE};

/// How often is looked whether the server still answers, and how long it may
/// take for anything.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The subscriptions, and the task that serves them.
pub struct Listening {
    shared: Arc<Shared>,
    task: Listener<String>,
}

struct Shared {
    rows: Arc<Rows>,
    by_channel: Mutex<HashMap<String, Vec<Arc<Changes>>>>,
}

/// A subscription that is served until this is dropped.
pub struct Listened {
    channel: String,
    changes: Arc<Changes>,
    shared: Weak<Shared>,
    orders: Orders<String>,
}

impl Drop for Listened {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut channels = shared.channels();
        if let Some(all) = channels.get_mut(&self.channel) {
            all.retain(|other| !Arc::ptr_eq(other, &self.changes));
            if all.is_empty() {
                channels.remove(&self.channel);
                self.orders.remove(self.channel.clone());
            }
        }
    }
}

impl Listening {
    pub fn new(rows: Arc<Rows>) -> Self {
        Self {
            shared: Arc::new(Shared {
                rows,
                by_channel: Mutex::default(),
            }),
            task: Listener::default(),
        }
    }

    /// Serves a subscription. Returns when the server has confirmed it, or does
    /// not answer; then it is served once the server does.
    pub async fn add(&self, channel: &str, changes: &Arc<Changes>) -> Result<Listened, Error> {
        let shared = self.shared.clone();
        let orders = self.task.orders(|received| shared.run(received));
        let listened = Listened {
            channel: channel.to_owned(),
            changes: changes.clone(),
            shared: Arc::downgrade(&self.shared),
            orders: orders.clone(),
        };
        self.shared
            .channels()
            .entry(channel.to_owned())
            .or_default()
            .push(changes.clone());
        if !orders.add(channel.to_owned()).await? {
            tracing::warn!(target: SCOPE, "postgresql has not confirmed a subscription yet: changes arrive when it does");
        }
        Ok(listened)
    }

    pub fn close(&self) {
        self.task.close();
    }
}

/// What the server answers, unless it does not in time.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Changes>>>> {
        self.by_channel.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Listens for as long as the store is open.
    async fn run(self: Arc<Self>, mut orders: mpsc::UnboundedReceiver<Order<String>>) {
        let mut attempts = Attempts::default();
        loop {
            let (is_first, mut confirmed) = (attempts.is_first(), false);
            let ended = self.listen(&mut orders, is_first, &mut confirmed).await;
            let Err(error) = ended else { return };
            tracing::warn!(target: SCOPE, "cannot listen to changes of postgresql, trying again: {error}");
            attempts.pause(confirmed).await;
        }
    }

    /// Listens over one connection until it breaks. `confirmed` is set when the
    /// server has confirmed all channels.
    async fn listen(
        &self,
        orders: &mut mpsc::UnboundedReceiver<Order<String>>,
        is_first: bool,
        confirmed: &mut bool,
    ) -> Result<(), sqlx::Error> {
        let mut listener = in_time(PgListener::connect_with(&self.rows.pool)).await?;
        // Another connection is another round of this.
        listener.eager_reconnect(false);
        let all: Vec<String> = self.channels().keys().cloned().collect();
        in_time(listener.listen_all(all.iter().map(String::as_str))).await?;
        *confirmed = true;
        if !is_first {
            self.missed().await;
        }
        let mut pings = tokio::time::interval(PING_INTERVAL);
        let lost = || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        loop {
            tokio::select! {
                received = listener.try_recv() => match received? {
                    Some(notification) => self.receive(&notification),
                    None => return Err(lost()),
                },
                order = orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Add(channel, done)) => {
                        in_time(listener.listen(&channel)).await?;
                        let _ = done.send(());
                    }
                    Some(Order::Remove(channel)) => {
                        // Somebody new may listen by now.
                        let is_gone = !self.channels().contains_key(&channel);
                        if is_gone {
                            in_time(listener.unlisten(&channel)).await?;
                        }
                    }
                },
                _ = pings.tick() => {
                    in_time(sqlx::query("SELECT 1").execute(&mut listener)).await?;
                }
            }
        }
    }

    /// Passes a notification to those who listen to its key.
    fn receive(&self, notification: &PgNotification) {
        let Some(key) = key_of(notification.payload()) else {
            let shown: String = notification.payload().chars().take(256).collect();
            tracing::info!(target: SCOPE, "unknown format of data received in notify event - '{shown}'");
            return;
        };
        let channels = self.channels();
        for changes in channels.get(notification.channel()).into_iter().flatten() {
            changes.changed(&key);
        }
    }

    /// Any key may have changed while there was no connection.
    async fn missed(&self) {
        let wants_all = {
            let channels = self.channels();
            let mut all = channels.values().flatten();
            all.any(|changes| changes.keys().is_none())
        };
        let every = match wants_all {
            false => Vec::new(),
            true => match self.rows.get(None).await {
                Ok(items) => items.into_keys().collect(),
                Err(error) => {
                    tracing::warn!(target: SCOPE, "subscriptions to all keys may have missed changes: {error}");
                    Vec::new()
                }
            },
        };
        for changes in self.channels().values().flatten() {
            match changes.keys() {
                Some(keys) => keys.iter().for_each(|key| changes.changed(key)),
                None => every.iter().for_each(|key| changes.changed(key)),
            }
        }
    }
}

/// The key of the row that a notification is about: `data.key`, in any case.
fn key_of(payload: &str) -> Option<String> {
    let payload: Value = serde_json::from_str(payload).ok()?;
    let row = payload.get("data")?.as_object()?;
    let mut members = row.iter();
    let (_, key) = members.find(|(name, _)| name.eq_ignore_ascii_case("key"))?;
    key.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_names_the_key_of_its_row() {
        let key = key_of(r#"{"table":"t","action":"UPDATE","data":{"Key":"k","value":"v"}}"#);
        assert_eq!(key.as_deref(), Some("k"));
        for payload in ["", "k", "{}", r#"{"data":null}"#, r#"{"data":{"key":1}}"#] {
            assert_eq!(key_of(payload), None, "{payload}");
        }
    }
}
