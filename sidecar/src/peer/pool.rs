//! HTTP/2 connections, kept per slot of the workers, so that a call never leaves the thread
//! it began on.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::uri::{Authority, Scheme};
use http::{Request, Response};
use outrider_host::{Tasks, Workers};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

use super::connection::{Connection, Received};
use crate::server::body::Body;

const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// A connection that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(180);

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
    slots: Arc<[Mutex<HashMap<Target, Kept>>]>,
    tasks: Tasks,
}

struct Kept {
    connection: Connection,
    used: Instant,
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

    /// Sends a request over the connection of this slot.
    pub async fn send(
        &self,
        target: &Target,
        request: Request<Body>,
    ) -> Result<Response<Received>, Status> {
        let connection = self.connection(target).await?;
        let answer = connection.send(request).await;
        if answer.is_err() && connection.is_closed() {
            self.forget(target);
        }
        answer
    }

    /// Makes sure that there is a connection, so that a call may begin.
    pub async fn dial(&self, target: &Target) -> Result<(), Status> {
        self.connection(target).await.map(drop)
    }

    /// Drops the connection of this slot, so that the next call dials anew.
    pub fn forget(&self, target: &Target) {
        self.slot().remove(target);
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, HashMap<Target, Kept>> {
        let index = Workers::slot() % self.slots.len();
        self.slots[index].lock().unwrap_or_else(|e| e.into_inner())
    }

    fn kept(&self, target: &Target) -> Option<Connection> {
        let mut slot = self.slot();
        let kept = slot
            .get_mut(target)
            .filter(|kept| !kept.connection.is_closed())?;
        kept.used = Instant::now();
        Some(kept.connection.clone())
    }

    async fn connection(&self, target: &Target) -> Result<Connection, Status> {
        if let Some(connection) = self.kept(target) {
            return Ok(connection);
        }
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
        let connection = Connection::open(stream, (scheme, authority), &self.tasks)
            .await
            .map_err(|error| unavailable(&error))?;
        let mut slot = self.slot();
        // Another call may have been faster; one of the two connections is enough.
        if let Some(kept) = slot.get(target).filter(|kept| !kept.connection.is_closed()) {
            return Ok(kept.connection.clone());
        }
        slot.retain(|_, kept| !kept.connection.is_closed() && kept.used.elapsed() < IDLE);
        slot.insert(
            target.clone(),
            Kept {
                connection: connection.clone(),
                used: Instant::now(),
            },
        );
        Ok(connection)
    }
}
