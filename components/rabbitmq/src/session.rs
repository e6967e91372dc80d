//! One connection to a server, made anew whenever it breaks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use outrider_components::{Error, Kind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::{Settings, failed};

const SCOPE: &str = "dapr.contrib";
/// How often a connection that says nothing is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the server may take to confirm a message.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection and the channel that messages are published on.
pub struct Session {
    connection: Connection,
    publisher: Mutex<Option<Arc<Publisher>>>,
}

/// A channel on which the server confirms messages.
pub struct Publisher {
    pub channel: Channel,
    /// Exchanges that were declared on it.
    declared: Mutex<HashSet<String>>,
}

impl Session {
    fn new(connection: Connection) -> Session {
        Session {
            connection,
            publisher: Mutex::default(),
        }
    }

    pub async fn channel(&self) -> Result<Channel, Error> {
        self.connection.create_channel().await.map_err(failed)
    }

    /// The channel to publish on; a new one after a failure.
    pub async fn publisher(&self) -> Result<Arc<Publisher>, Error> {
        let slot = || {
            self.publisher
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = slot().clone();
        if let Some(publisher) = known.filter(|known| known.channel.status().connected()) {
            return Ok(publisher);
        }
        let channel = self.channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(failed)?;
        let publisher = Arc::new(Publisher {
            channel,
            declared: Mutex::default(),
        });
        *slot() = Some(publisher.clone());
        Ok(publisher)
    }
}

impl Publisher {
    /// Whether an exchange was declared on this channel.
    pub fn has_declared(&self, exchange: &str) -> bool {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.contains(exchange)
    }

    pub fn declared(&self, exchange: &str) {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.insert(exchange.to_owned());
    }

    /// Returns when the server has the message.
    pub async fn publish(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        data: &[u8],
        properties: BasicProperties,
    ) -> Result<(), Error> {
        let options = BasicPublishOptions::default();
        let sent = self
            .channel
            .basic_publish(exchange, routing_key, options, data, properties)
            .await
            .map_err(failed)?;
        match tokio::time::timeout(CONFIRM_TIMEOUT, sent).await {
            Ok(Ok(Confirmation::Nack(_))) | Err(_) => Err(Error::unavailable(
                "did not receive confirmation of publishing",
            )),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(error)),
        }
    }
}

/// Keeps a connection to a server.
pub struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    closed: CancellationToken,
    /// Makes the connections.
    task: Mutex<JoinSet<()>>,
}

impl Link {
    /// Connects. Whenever the connection breaks, another is made after `wait`.
    pub async fn open(settings: Settings, wait: Duration) -> Result<Link, Error> {
        let first = settings.connect().await?;
        let (sender, sessions) = watch::channel(None);
        let closed = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(keep(settings, wait, first, sender, closed.clone()));
        Ok(Link {
            sessions,
            closed,
            task: Mutex::new(task),
        })
    }

    /// Cancelled when this is closed.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::new(Kind::Precondition, "component is closed"));
        }
        Ok(())
    }

    /// The connection that there is, or that comes within `patience`.
    pub async fn session(&self, patience: Duration) -> Result<Arc<Session>, Error> {
        session(&self.sessions, patience).await
    }

    /// Where connections come from, for a task.
    pub fn sessions(&self) -> watch::Receiver<Option<Arc<Session>>> {
        self.sessions.clone()
    }

    pub async fn close(&self) {
        self.closed.cancel();
        let mut task =
            std::mem::take(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner));
        while task.join_next().await.is_some() {}
    }
}

/// The connection that there is, or that comes within `patience`.
pub async fn session(
    sessions: &watch::Receiver<Option<Arc<Session>>>,
    patience: Duration,
) -> Result<Arc<Session>, Error> {
    let mut sessions = sessions.clone();
    let waiting = sessions.wait_for(Option::is_some);
    let found = match tokio::time::timeout(patience, waiting).await {
        Ok(Ok(session)) => session.clone(),
        Ok(Err(_)) => return Err(Error::new(Kind::Precondition, "component is closed")),
        Err(_) => None,
    };
    found.ok_or_else(|| Error::unavailable("channel/connection is not open"))
}

async fn keep(
    settings: Settings,
    wait: Duration,
    first: Connection,
    sessions: watch::Sender<Option<Arc<Session>>>,
    closed: CancellationToken,
) {
    let mut next = Some(first);
    while !closed.is_cancelled() {
        let connection = match next.take() {
            Some(connection) => connection,
            None => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = closed.cancelled() => break,
                }
                match settings.connect().await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::warn!(target: SCOPE, "rabbitmq: reconnecting failed: {error}");
                        continue;
                    }
                }
            }
        };
        let session = Arc::new(Session::new(connection));
        sessions.send_replace(Some(session.clone()));
        let is_open = tokio::select! {
            () = broken(&session.connection) => false,
            () = closed.cancelled() => true,
        };
        sessions.send_replace(None);
        if is_open {
            let _ = session.connection.close(200, "OK".into()).await;
        } else {
            let wait = outrider_kit::duration::format(wait);
            tracing::warn!(target: SCOPE, "rabbitmq: the connection is lost; reconnecting in {wait} ...");
        }
    }
}

/// Returns when the connection is not open any more.
async fn broken(connection: &Connection) {
    let mut events = Box::pin(connection.events_listener());
    while connection.status().connected() {
        // An event only says that it is time to look.
        let _ = tokio::time::timeout(LOOK, events.next()).await;
    }
}
