//! A client that keeps its connection: what the server has not acknowledged is
//! sent again, and subscriptions are made again.

mod session;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outrider_components::{Error, Kind};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::session::Session;
use crate::packet::{Publish, Qos};
use crate::settings::Settings;

const SCOPE: &str = "dapr.contrib";
/// How long the server may take to acknowledge something.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// Requests that wait for the connection.
const REQUESTS: usize = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A connected client. Dropping it ends the connection at once.
pub struct Client {
    requests: mpsc::Sender<Request>,
    connected: watch::Receiver<bool>,
    closed: CancellationToken,
    task: Mutex<JoinSet<()>>,
}

enum Request {
    Publish(Publish, Done),
    Subscribe(Subscribed, Done),
    /// Ends a subscription, at the server too if that is wanted. The messages
    /// were not handled.
    Leave {
        filter: String,
        unsubscribe: bool,
        messages: Vec<Incoming>,
    },
}

type Done = oneshot::Sender<Result<(), Error>>;

/// A subscription, and where its messages go.
struct Subscribed {
    filter: String,
    qos: Qos,
    sink: mpsc::UnboundedSender<Incoming>,
}

/// A message that arrived.
pub struct Incoming {
    pub publish: Publish,
    acknowledgements: mpsc::UnboundedSender<Acknowledgement>,
    /// The connection that it came on.
    epoch: u64,
    /// A place among the messages that are handled.
    _permit: OwnedSemaphorePermit,
}

/// Says that a message has been handled.
struct Acknowledgement {
    epoch: u64,
    id: u16,
    qos: Qos,
}

impl Incoming {
    pub fn acknowledge(self) {
        if self.publish.qos > 0 {
            // After the end of the client there is nobody to tell.
            let _ = self.acknowledgements.send(Acknowledgement {
                epoch: self.epoch,
                id: self.publish.id,
                qos: self.publish.qos,
            });
        }
    }
}

impl Client {
    /// Connects. At most `room` messages are handled at a time.
    pub async fn connect(settings: Settings, room: usize) -> Result<Client, Error> {
        let mut session = Session::new(settings, room);
        session.connect().await?;
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let (sender, connected) = watch::channel(true);
        let closed = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(session, receiver, sender, closed.clone()));
        Ok(Client {
            requests,
            connected,
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

    pub fn ping(&self) -> Result<(), Error> {
        if *self.connected.borrow() {
            return Ok(());
        }
        Err(Error::unavailable("not connected"))
    }

    /// Returns when the server has the message; with quality 0 when it is on
    /// its way.
    pub async fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
    ) -> Result<(), Error> {
        check_length(topic)?;
        let publish = Publish {
            topic: topic.to_owned(),
            payload,
            qos,
            retain,
            again: false,
            id: 0,
        };
        self.ask(|done| Request::Publish(publish, done)).await
    }

    /// The messages that match `filter`, from now on.
    pub async fn subscribe(
        &self,
        filter: &str,
        qos: Qos,
    ) -> Result<mpsc::UnboundedReceiver<Incoming>, Error> {
        check_length(filter)?;
        let (sink, messages) = mpsc::unbounded_channel();
        let subscribed = Subscribed {
            filter: filter.to_owned(),
            qos,
            sink,
        };
        self.ask(|done| Request::Subscribe(subscribed, done))
            .await?;
        Ok(messages)
    }

    /// Something that ends a subscription, for a task.
    pub fn leaver(&self) -> Leaver {
        Leaver(self.requests.clone())
    }

    async fn ask(&self, request: impl FnOnce(Done) -> Request) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let asking = async {
            let sent = self.requests.send(request(done)).await;
            sent.map_err(|_| Error::unavailable("mqtt client closed"))?;
            let answer = answer.await;
            answer.unwrap_or_else(|_| Err(Error::unavailable("mqtt client closed")))
        };
        tokio::select! {
            answer = tokio::time::timeout(ACKNOWLEDGED_WITHIN, asking) => answer
                .unwrap_or_else(|_| Err(Error::unavailable("context deadline exceeded"))),
            () = self.closed.cancelled() => Err(Error::unavailable("mqtt client closed")),
        }
    }

    pub async fn close(&self) {
        self.closed.cancel();
        let mut task =
            std::mem::take(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner));
        while task.join_next().await.is_some() {}
    }
}

/// Ends subscriptions of a client.
pub struct Leaver(mpsc::Sender<Request>);

impl Leaver {
    /// Ends a subscription, at the server too if that is wanted. `messages`
    /// were not handled: the next subscription that they match gets them.
    pub async fn leave(self, filter: String, unsubscribe: bool, messages: Vec<Incoming>) {
        let request = Request::Leave {
            filter,
            unsubscribe,
            messages,
        };
        // Without a client there is no subscription either.
        let _ = self.0.send(request).await;
    }
}

fn check_length(topic: &str) -> Result<(), Error> {
    if topic.is_empty() {
        return Err(Error::invalid("topic name is empty"));
    }
    if u16::try_from(topic.len()).is_err() {
        return Err(Error::invalid("topic name is longer than 65,535 bytes"));
    }
    Ok(())
}

async fn run(
    mut session: Session,
    mut requests: mpsc::Receiver<Request>,
    connected: watch::Sender<bool>,
    closed: CancellationToken,
) {
    loop {
        let ended = session.run(&mut requests, &closed).await;
        connected.send_replace(false);
        let Err(error) = ended else { return };
        tracing::error!(target: SCOPE, "Connection with broker lost; error: {error}");
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = closed.cancelled() => return,
            }
            tracing::info!(target: SCOPE, "Attempting to reconnect to broker…");
            let connecting = tokio::select! {
                connecting = session.connect() => connecting,
                () = closed.cancelled() => return,
            };
            match connecting {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(target: SCOPE, "Failed to reconnect to broker: {error}");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        connected.send_replace(true);
    }
}

/// What a session shares with all messages that it hands out.
fn incoming(
    publish: Publish,
    epoch: u64,
    acknowledgements: &mpsc::UnboundedSender<Acknowledgement>,
    permit: OwnedSemaphorePermit,
) -> Incoming {
    Incoming {
        publish,
        acknowledgements: acknowledgements.clone(),
        epoch,
        _permit: permit,
    }
}
