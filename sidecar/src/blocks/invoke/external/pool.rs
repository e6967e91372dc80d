//! Connections to hosts outside the mesh, kept per slot of the workers.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use outrider_host::Workers;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::dial::{Dialer, Tls};
use outrider_net::body::Body;

/// Idle connections that a slot keeps to one host, and for how long.
const IDLE: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(90);

/// Makes pools.
pub struct Pools {
    slots: usize,
    /// Calls at once through one pool.
    most: Option<usize>,
}

impl Pools {
    pub fn new(slots: usize, most: Option<usize>) -> Self {
        Self {
            slots: slots.max(1),
            most,
        }
    }

    /// Verifies certificates against the roots of the system.
    pub fn verifying(&self) -> Pool {
        self.with(Tls::default())
    }

    pub(super) fn with(&self, tls: Tls) -> Pool {
        let dialer = Dialer::new(tls);
        let client = || {
            Pooled::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_FOR)
                .pool_max_idle_per_host(IDLE)
                .build(dialer.clone())
        };
        Pool {
            clients: (0..self.slots).map(|_| client()).collect(),
            limit: self.most.map(|most| Arc::new(Semaphore::new(most))),
            dialer,
        }
    }
}

pub struct Pool {
    dialer: Dialer,
    clients: Vec<Pooled<Dialer, Body>>,
    limit: Option<Arc<Semaphore>>,
}

impl Pool {
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let limit = self.limit.clone()?;
        // The semaphore is never closed.
        limit.acquire_owned().await.ok()
    }

    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let client = &self.clients[Workers::slot() % self.clients.len()];
        let uri = request.uri().clone();
        let sent = client.request(request).await;
        sent.map_err(|error| self.dialer.explain(&uri, &error))
    }
}
