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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::connection::{Connection, Place, Received};
use crate::server::body::Body;

const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Exchanges that share a connection. Those that are more than the other end
/// takes at once (RFC 9113, section 5.1.2) wait: a further connection would
/// only get round what it asked for.
const SHARED: usize = 2048;
/// Connections of one slot to one target, at most.
const MOST: usize = 8;

/// Whom a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// `host:port`
    pub address: String,
    /// Namespace and app id that the peer has to prove, for sidecars.
    pub app: Option<(String, String)>,
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub fn boxed(stream: impl Io + 'static) -> Box<dyn Io> {
    Box::new(stream)
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;
type Dial = Arc<dyn Fn(&Target) -> Dialling + Send + Sync>;

#[derive(Clone)]
pub struct Pool {
    dial: Dial,
    /// Of targets that have no app to prove; to the others it is always TLS.
    scheme: Scheme,
    slots: Arc<[Mutex<Slot>]>,
    tasks: Tasks,
}

type Slot = HashMap<Target, Kept>;

/// The connections of one slot to one target.
struct Kept {
    connections: Vec<(Connection, Instant)>,
    /// Those that find no place dial one after the other, since a new
    /// connection has places for many.
    dialling: Arc<Semaphore>,
    /// When a dial failed last, and why.
    failed: Option<(Instant, Status)>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            dialling: Arc::new(Semaphore::new(1)),
            failed: None,
        }
    }
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
        dial: impl Fn(&Target) -> Dialling + Send + Sync + 'static,
    ) -> Self {
        Self {
            dial: Arc::new(dial),
            scheme,
            slots: (0..slots.max(1)).map(|_| Mutex::default()).collect(),
            tasks: Tasks::new(),
        }
    }

    /// Sends a request over a connection of this slot.
    pub async fn send(
        &self,
        target: &Target,
        request: Request<Body>,
    ) -> Result<Response<Received>, Status> {
        self.place(target).await?.send(request).await
    }

    /// Makes sure that there is a connection, so that a call may begin.
    pub async fn dial(&self, target: &Target) -> Result<(), Status> {
        self.place(target).await.map(drop)
    }

    /// Drops the connections of this slot, so that the next call dials anew.
    pub fn forget(&self, target: &Target) {
        self.slot().remove(target);
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        let index = Workers::slot() % self.slots.len();
        locked(&self.slots[index])
    }

    async fn place(&self, target: &Target) -> Result<Place, Status> {
        if let Some(place) = self.slot().get_mut(target).and_then(Kept::place) {
            return Ok(place);
        }
        let started = Instant::now();
        let turn = {
            let mut slot = self.slot();
            slot.entry(target.clone()).or_default().dialling.clone()
        };
        // It is never closed; without it two might dial at once.
        let _turn = turn.acquire().await;
        if let Some(kept) = self.slot().get_mut(target) {
            if let Some(place) = kept.place() {
                return Ok(place);
            }
            // What failed while this one waited has failed for it, too.
            if let Some((at, status)) = &kept.failed
                && *at >= started
            {
                return Err(status.clone());
            }
        }
        let connected = self.connect(target).await;
        let mut slot = self.slot();
        let kept = slot.entry(target.clone()).or_default();
        match connected {
            Ok(connection) => {
                let place = connection.place();
                kept.connections.push((connection, Instant::now()));
                kept.failed = None;
                Ok(place)
            }
            Err(status) => {
                kept.failed = Some((Instant::now(), status.clone()));
                Err(status)
            }
        }
    }

    async fn connect(&self, target: &Target) -> Result<Connection, Status> {
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

    /// Ends connections that nobody has used for `idle`, looking every
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
        // Whoever dials at this moment keeps the entry.
        !kept.connections.is_empty() || kept.dialling.available_permits() == 0
    });
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests;
