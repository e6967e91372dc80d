//! HTTP/2 connections, kept per slot of the workers, so that a call never leaves the thread
//! it began on.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::uri::{Authority, Scheme};
use http::{Request, Response};
use outrider_host::{Tasks, Workers};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::body::Body;
use crate::connection::{self, Connection, Dialled, Place, Received};

const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Exchanges that share a connection. Those that are more than the other end
/// takes at once (RFC 9113, section 5.1.2) wait: a further connection would
/// only get round what it asked for.
const SHARED: usize = 2048;
/// How often a request that was refused unseen is sent again.
const REFUSALS: usize = 3;
/// Connections of one slot to one target, at most.
const MOST: usize = 8;

/// Whom a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// `host:port`
    pub address: String,
    /// Namespace and app id that the peer has to prove, for sidecars.
    pub app: Option<(String, String)>,
}

/// The same request, unless its body passes through.
fn replica(request: &Request<Body>) -> Option<Request<Body>> {
    let body = match request.body() {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        _ => return None,
    };
    let mut replica = Request::new(body);
    *replica.method_mut() = request.method().clone();
    *replica.uri_mut() = request.uri().clone();
    *replica.headers_mut() = request.headers().clone();
    Some(replica)
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;
type Dial = Arc<dyn Fn(&Destination) -> Dialling + Send + Sync>;

#[derive(Clone)]
pub struct Pool {
    dial: Dial,
    /// Of targets that have no app to prove; to the others it is always TLS.
    scheme: Scheme,
    slots: Arc<[Mutex<Slot>]>,
    tasks: Tasks,
}

type Slot = HashMap<Destination, Kept>;

/// How a dial ended, once it has.
type Outcome = watch::Receiver<Option<Result<(), Status>>>;

/// The connections of one slot to one target.
#[derive(Default)]
struct Kept {
    connections: Vec<(Connection, Instant)>,
    /// One dial for all that find no place, since a new connection has places
    /// for many.
    dialling: Option<Outcome>,
}

impl Kept {
    /// A place on the first connection that is free; on the least busy one
    /// where there may be no more of them.
    fn place(&mut self) -> Option<Place> {
        self.connections.retain(|(c, _)| !c.is_closed());
        let is_free = |connection: &Connection| connection.open_exchanges() < SHARED;
        let free = self.connections.iter().position(|(c, _)| is_free(c));
        let index = match free {
            Some(index) => index,
            None if self.connections.len() < MOST => return None,
            None => {
                let all = self.connections.iter().enumerate();
                all.min_by_key(|(_, (c, _))| c.open_exchanges())?.0
            }
        };
        let (connection, used) = &mut self.connections[index];
        *used = Instant::now();
        Some(connection.place())
    }
}

impl Pool {
    pub fn new(
        slots: usize,
        scheme: Scheme,
        dial: impl Fn(&Destination) -> Dialling + Send + Sync + 'static,
    ) -> Self {
        Self {
            dial: Arc::new(dial),
            scheme,
            slots: (0..slots.max(1)).map(|_| Mutex::default()).collect(),
            tasks: Tasks::new(),
        }
    }

    /// Sends a request over a connection of this slot; once more if it was
    /// refused unseen, which happens where the other end counts an exchange
    /// that has ended as one that is open.
    pub async fn send(
        &self,
        target: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<Received>, Status> {
        for _ in 0..REFUSALS {
            let Some(again) = replica(&request) else {
                break;
            };
            match self.place(target).await?.send(request).await {
                Err(status) if connection::is_refused(&status) => request = again,
                answered => return answered,
            }
        }
        self.place(target).await?.send(request).await
    }

    /// Drops the connections of this slot, so that the next call dials anew.
    pub fn forget(&self, target: &Destination) {
        if let Some(kept) = self.slot().get_mut(target) {
            kept.connections.clear();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        let index = Workers::slot() % self.slots.len();
        locked(&self.slots[index])
    }

    /// A place on a connection that is there.
    pub fn open(&self, target: &Destination) -> Option<Place> {
        self.slot().get_mut(target).and_then(Kept::place)
    }

    /// A place, on a new connection if need be. A dial that fails fails for all
    /// that wait for it; it goes on when they no longer do.
    pub async fn place(&self, target: &Destination) -> Result<Place, Status> {
        loop {
            let mut dialling = {
                let mut slot = self.slot();
                if let Some(place) = slot.get_mut(target).and_then(Kept::place) {
                    return Ok(place);
                }
                let kept = slot.entry(target.clone()).or_default();
                let begin = || self.begin(target.clone());
                kept.dialling.get_or_insert_with(begin).clone()
            };
            match dialling.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(Err(status))) => return Err(status.clone()),
                Ok(_) => {}
                Err(_) => return Err(Status::unavailable("the dial was cut off")),
            }
        }
    }

    /// Dials on this worker.
    fn begin(&self, target: Destination) -> Outcome {
        let (tell, outcome) = watch::channel(None);
        let pool = self.clone();
        self.tasks.spawn("dial", async move {
            let connected = pool.connect(&target).await;
            let outcome = connected.as_ref().map(drop).map_err(Status::clone);
            {
                let mut slot = pool.slot();
                let kept = slot.entry(target.clone()).or_default();
                kept.dialling = None;
                kept.connections
                    .extend(connected.map(|connection| (connection, Instant::now())));
                if kept.connections.is_empty() {
                    slot.remove(&target);
                }
            }
            tell.send_replace(Some(outcome));
        });
        outcome
    }

    async fn connect(&self, target: &Destination) -> Result<Connection, Status> {
        let unavailable = |cause: &dyn std::fmt::Display| {
            Status::unavailable(format!(
                "connection error: desc = \"transport: Error while dialing: dial tcp {}: {cause}\"",
                target.address
            ))
        };
        let dialled = tokio::time::timeout(DIAL_LIMIT, (self.dial)(target)).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(unavailable(&"connect: connection refused"));
            }
            Ok(Err(error)) => return Err(unavailable(&error)),
            Err(_) => return Err(unavailable(&"i/o timeout")),
        };
        let authority =
            Authority::try_from(target.address.as_str()).map_err(|error| unavailable(&error))?;
        let scheme = match target.app {
            Some(_) => Scheme::HTTPS,
            None => self.scheme.clone(),
        };
        Connection::open(stream, (scheme, authority), &self.tasks)
            .await
            .map_err(|error| unavailable(&error))
    }

    /// Closes connections that were not used for `idle`, looking every
    /// `interval`.
    pub async fn collect(self, idle: Duration, interval: Duration, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
            for slot in self.slots.iter() {
                purge(&mut locked(slot), idle);
            }
        }
    }
}

fn purge(slot: &mut Slot, idle: Duration) {
    slot.retain(|target, kept| {
        let before = kept.connections.len();
        kept.connections
            .retain(|(connection, used)| connection.open_exchanges() > 0 || used.elapsed() < idle);
        let purged = before - kept.connections.len();
        if purged > 0 {
            tracing::debug!(
                target: "dapr.runtime.grpc.manager",
                "Purged {purged} expired gRPC connection(s) to {}", target.address
            );
        }
        // A dial that is under way keeps the entry.
        !kept.connections.is_empty() || kept.dialling.is_some()
    });
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests;
