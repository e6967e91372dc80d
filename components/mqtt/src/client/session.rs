//! What is said on one connection after the other.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use outrider_components::{Error, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Acknowledgement, Done, Incoming, Request, SCOPE, Subscribed, incoming};
use crate::filter;
use crate::packet::{Connect, Publish, Received, Sent};
use crate::settings::{Settings, Stream};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A connection on which nothing comes for as long is broken.
const SILENCE: Duration = Duration::from_secs(45);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// Messages that the server has not acknowledged.
const MAX_OUTGOING: usize = 1000;
/// Messages of quality 0 that wait to be handled; more are dropped. How many
/// of the others there are is up to the server.
const MAX_WAITING: usize = 1000;
/// Messages without a subscription that are kept for the next one. The server
/// has them too.
const MAX_ORPHANS: usize = 50;

pub struct Session {
    settings: Settings,
    wire: Option<Wire>,
    /// Counts the connections.
    epoch: u64,
    last_id: u16,
    outgoing: BTreeMap<u64, Outgoing>,
    next_outgoing: u64,
    subscriptions: Vec<Subscribed>,
    /// Who waits for the answer to a subscription.
    subscribing: HashMap<u16, (String, Option<Done>)>,
    room: Arc<Semaphore>,
    waiting: VecDeque<Publish>,
    orphans: VecDeque<Incoming>,
    /// Messages of quality 2 that the server knows we have.
    recorded: HashSet<u16>,
    acknowledgements: mpsc::UnboundedSender<Acknowledgement>,
    acknowledged: mpsc::UnboundedReceiver<Acknowledgement>,
}

/// A message that the server has not acknowledged.
struct Outgoing {
    publish: Publish,
    /// It was, as far as quality 2 goes in its first half.
    released: bool,
    done: Done,
}

/// A connection and its buffers.
struct Wire {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
    heard: Instant,
    ping: Instant,
}

impl Wire {
    fn new(stream: Box<dyn Stream>) -> Wire {
        let (reader, writer) = tokio::io::split(stream);
        Wire {
            reader,
            writer,
            input: BytesMut::with_capacity(4096),
            output: BytesMut::with_capacity(4096),
            unflushed: false,
            heard: Instant::now(),
            ping: Instant::now() + KEEP_ALIVE,
        }
    }

    fn has_output(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }
}

/// Writes some of what there is. Nothing is lost where it is not waited for.
async fn write(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if !output.is_empty() {
        *unflushed = true;
        if writer.write_buf(output).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    if output.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    }
    Ok(())
}

async fn read(reader: &mut ReadHalf<Box<dyn Stream>>, input: &mut BytesMut) -> io::Result<()> {
    input.reserve(4096);
    match reader.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::unavailable(error.to_string())
}

impl Session {
    pub fn new(settings: Settings, room: usize) -> Session {
        let (acknowledgements, acknowledged) = mpsc::unbounded_channel();
        Session {
            settings,
            wire: None,
            epoch: 0,
            last_id: 0,
            outgoing: BTreeMap::new(),
            next_outgoing: 0,
            subscriptions: Vec::new(),
            subscribing: HashMap::new(),
            room: Arc::new(Semaphore::new(room)),
            waiting: VecDeque::new(),
            orphans: VecDeque::new(),
            recorded: HashSet::new(),
            acknowledgements,
            acknowledged,
        }
    }

    /// Connects, and says again what the server may not have heard.
    pub async fn connect(&mut self) -> Result<(), Error> {
        let stream = self.settings.connect().await.map_err(broken)?;
        let mut wire = Wire::new(stream);
        let connect = Connect {
            client_id: self.settings.client_id.clone(),
            clean_session: self.settings.clean_session,
            keep_alive: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
            user: self.settings.user.clone(),
            password: self
                .settings
                .password
                .as_ref()
                .map(|secret| secret.0.clone()),
        };
        Sent::Connect(connect).encode(&mut wire.output);
        let greeting = async {
            while wire.has_output() {
                write(&mut wire.writer, &mut wire.output, &mut wire.unflushed)
                    .await
                    .map_err(broken)?;
            }
            loop {
                if let Some(packet) = Received::decode(&mut wire.input).map_err(broken)? {
                    return Ok::<_, Error>(packet);
                }
                read(&mut wire.reader, &mut wire.input)
                    .await
                    .map_err(broken)?;
            }
        };
        let answer = tokio::time::timeout(ANSWERED_WITHIN, greeting)
            .await
            .map_err(|_| Error::unavailable("the server did not answer in time"))??;
        let Received::Connected {
            code,
            session_present,
        } = answer
        else {
            return Err(Error::unavailable("the server does not speak MQTT"));
        };
        refused(code)?;
        self.wire = Some(wire);
        self.epoch += 1;
        // What was not acknowledged comes again.
        self.waiting.clear();
        self.orphans.clear();
        if !session_present {
            self.recorded.clear();
        }
        self.say_again();
        Ok(())
    }

    fn say_again(&mut self) {
        let waiting: Vec<_> = self.subscribing.drain().map(|(_, asked)| asked).collect();
        let mut waiting: HashMap<String, Option<Done>> = waiting.into_iter().collect();
        for at in 0..self.subscriptions.len() {
            let id = self.new_id();
            let Subscribed { filter, qos, .. } = &self.subscriptions[at];
            let (filter, qos) = (filter.clone(), *qos);
            let done = waiting.remove(&filter).flatten();
            self.subscribing.insert(id, (filter.clone(), done));
            self.send(&Sent::Subscribe { id, filter, qos });
        }
        let again: Vec<Sent> = self
            .outgoing
            .values_mut()
            .map(|outgoing| {
                outgoing.publish.again = true;
                if outgoing.released {
                    Sent::Release(outgoing.publish.id)
                } else {
                    Sent::Publish(outgoing.publish.clone())
                }
            })
            .collect();
        for packet in again {
            self.send(&packet);
        }
    }

    /// Writes to the connection, if there is one.
    fn send(&mut self, packet: &Sent) {
        if let Some(wire) = &mut self.wire {
            packet.encode(&mut wire.output);
        }
    }

    /// A number that nothing else has.
    fn new_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1).max(1);
            let id = self.last_id;
            let is_used = self.subscribing.contains_key(&id)
                || self
                    .outgoing
                    .values()
                    .any(|outgoing| outgoing.publish.id == id);
            if !is_used {
                return id;
            }
        }
    }

    /// Speaks until the connection breaks, or, without an error, until the end.
    pub async fn run(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        closed: &CancellationToken,
    ) -> Result<(), Error> {
        loop {
            self.take_packets()?;
            let Some(wire) = &mut self.wire else {
                return Err(Error::unavailable("not connected"));
            };
            let (has_output, ping) = (wire.has_output(), wire.ping);
            tokio::select! {
                biased;
                () = closed.cancelled() => return self.disconnect().await,
                written = write(&mut wire.writer, &mut wire.output, &mut wire.unflushed), if has_output => {
                    written.map_err(broken)?;
                }
                done = read(&mut wire.reader, &mut wire.input) => {
                    done.map_err(broken)?;
                    wire.heard = Instant::now();
                }
                Some(handled) = self.acknowledged.recv() => self.acknowledge(&handled),
                Ok(permit) = self.room.clone().acquire_owned(), if !self.waiting.is_empty() => {
                    if let Some(publish) = self.waiting.pop_front() {
                        let message = incoming(publish, self.epoch, &self.acknowledgements, permit);
                        self.hand_out(message);
                    }
                }
                Some(request) = requests.recv(), if self.outgoing.len() < MAX_OUTGOING => {
                    self.ask(request);
                }
                () = tokio::time::sleep_until(ping) => {
                    if wire.heard.elapsed() > SILENCE {
                        return Err(Error::unavailable("pingresp not received, disconnecting"));
                    }
                    wire.ping = Instant::now() + KEEP_ALIVE / 2;
                    self.send(&Sent::Ping);
                }
            }
        }
    }

    async fn disconnect(&mut self) -> Result<(), Error> {
        // What has been handled is acknowledged before the end.
        while let Ok(handled) = self.acknowledged.try_recv() {
            self.acknowledge(&handled);
        }
        self.send(&Sent::Disconnect);
        if let Some(mut wire) = self.wire.take() {
            let last = async {
                while wire.has_output() {
                    write(&mut wire.writer, &mut wire.output, &mut wire.unflushed).await?;
                }
                wire.writer.shutdown().await
            };
            // A server that does not listen notices the end anyhow.
            let _ = tokio::time::timeout(Duration::from_secs(1), last).await;
        }
        Ok(())
    }

    fn ask(&mut self, request: Request) {
        match request {
            // Nobody waits for it any more.
            Request::Publish(_, done) | Request::Subscribe(_, done) if done.is_closed() => {}
            Request::Publish(publish, done) if publish.qos == 0 => {
                self.send(&Sent::Publish(publish));
                let _ = done.send(Ok(()));
            }
            Request::Publish(mut publish, done) => {
                publish.id = self.new_id();
                self.send(&Sent::Publish(publish.clone()));
                let outgoing = Outgoing {
                    publish,
                    released: false,
                    done,
                };
                self.outgoing.insert(self.next_outgoing, outgoing);
                self.next_outgoing += 1;
            }
            Request::Subscribe(subscribed, done) => {
                let id = self.new_id();
                let (filter, qos) = (subscribed.filter.clone(), subscribed.qos);
                self.subscribing.insert(id, (filter.clone(), Some(done)));
                self.subscriptions.retain(|other| other.filter != filter);
                self.subscriptions.push(subscribed);
                self.send(&Sent::Subscribe { id, filter, qos });
                for message in std::mem::take(&mut self.orphans) {
                    self.hand_out(message);
                }
            }
            Request::Leave {
                filter,
                unsubscribe,
                messages,
            } => {
                // Another may have been made with the same filter meanwhile.
                self.subscriptions
                    .retain(|other| other.filter != filter || !other.sink.is_closed());
                for message in messages {
                    self.hand_out(message);
                }
                let is_used = self
                    .subscriptions
                    .iter()
                    .any(|other| other.filter == filter);
                if unsubscribe && !is_used {
                    let id = self.new_id();
                    self.send(&Sent::Unsubscribe { id, filter });
                }
            }
        }
    }

    /// Gives a message to its subscription; one of exactly this topic comes
    /// before patterns.
    fn hand_out(&mut self, mut message: Incoming) {
        let topic = message.publish.topic.clone();
        let exact = self.subscriptions.iter().filter(|s| s.filter == topic);
        let others = self
            .subscriptions
            .iter()
            .filter(|s| filter::matches(&s.filter, &topic));
        for subscribed in exact.chain(others) {
            match subscribed.sink.send(message) {
                Ok(()) => return,
                Err(back) => message = back.0,
            }
        }
        if message.publish.qos == 0 || message.epoch != self.epoch {
            return;
        }
        if self.orphans.len() >= MAX_ORPHANS {
            tracing::warn!(target: SCOPE, "No handler defined for messages received on topic {topic}");
            self.orphans.pop_front();
        }
        self.orphans.push_back(message);
    }

    fn acknowledge(&mut self, handled: &Acknowledgement) {
        if handled.epoch != self.epoch {
            return;
        }
        if handled.qos == 1 {
            self.send(&Sent::Acknowledge(handled.id));
        } else {
            self.recorded.insert(handled.id);
            self.send(&Sent::Received(handled.id));
        }
    }

    /// Takes all packets that have come.
    fn take_packets(&mut self) -> Result<(), Error> {
        while let Some(wire) = &mut self.wire {
            let Some(packet) = Received::decode(&mut wire.input).map_err(broken)? else {
                break;
            };
            self.take(packet)?;
        }
        Ok(())
    }

    fn take(&mut self, packet: Received) -> Result<(), Error> {
        match packet {
            Received::Publish(publish)
                if publish.qos == 2 && self.recorded.contains(&publish.id) =>
            {
                self.send(&Sent::Received(publish.id));
            }
            Received::Publish(publish) => {
                if publish.qos == 0 && self.waiting.len() >= MAX_WAITING {
                    tracing::warn!(target: SCOPE, "A message of topic {} is dropped: too many wait to be handled", publish.topic);
                } else {
                    self.waiting.push_back(publish);
                }
            }
            Received::Acknowledged(id) | Received::Completed(id) => {
                if let Some(outgoing) = self
                    .outgoing_of(id)
                    .and_then(|at| self.outgoing.remove(&at))
                {
                    let _ = outgoing.done.send(Ok(()));
                }
            }
            Received::Recorded(id) => {
                if let Some(at) = self.outgoing_of(id)
                    && let Some(outgoing) = self.outgoing.get_mut(&at)
                {
                    outgoing.released = true;
                }
                self.send(&Sent::Release(id));
            }
            Received::Released(id) => {
                self.recorded.remove(&id);
                self.send(&Sent::Complete(id));
            }
            Received::Subscribed { id, code } => self.subscribed(id, code),
            Received::Unsubscribed(_) | Received::Pong => {}
            Received::Connected { .. } => {
                return Err(Error::unavailable("the server greeted twice"));
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, id: u16, code: u8) {
        let Some((filter, done)) = self.subscribing.remove(&id) else {
            return;
        };
        let result = if code < 0x80 {
            Ok(())
        } else {
            self.subscriptions.retain(|other| other.filter != filter);
            tracing::error!(target: SCOPE, "The broker refused the subscription to {filter}");
            Err(Error::new(
                Kind::Denied,
                format!("the server refused the subscription to {filter}"),
            ))
        };
        if let Some(done) = done {
            let _ = done.send(result);
        }
    }

    fn outgoing_of(&self, id: u16) -> Option<u64> {
        let mut found = self.outgoing.iter().filter(|(_, o)| o.publish.id == id);
        found.next().map(|(at, _)| *at)
    }
}

/// What the code in the answer to a greeting means.
fn refused(code: u8) -> Result<(), Error> {
    let (kind, text) = match code {
        0 => return Ok(()),
        1 => (Kind::Unsupported, "unacceptable protocol version"),
        2 => (Kind::Invalid, "identifier rejected"),
        3 => (Kind::Unavailable, "server Unavailable"),
        4 => (Kind::Denied, "bad user name or password"),
        5 => (Kind::Denied, "not Authorized"),
        _ => (Kind::Unavailable, "connection refused"),
    };
    Err(Error::new(kind, text))
}
