//! To the application: HTTP or gRPC, its health, and how many calls at once.

pub mod connect;
pub mod grpc;
pub mod health;
pub mod http;
mod pool;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrider_trace::Tracer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::message;
use outrider_net::body::{self, Body};

/// The way to the application.
pub struct Channel {
    pub kind: Kind,
    /// Present with a cap on concurrent calls.
    pub limit: Option<Arc<Semaphore>>,
    pub healthy: Arc<Healthy>,
    /// Makes the spans of what the sidecar delivers.
    pub tracer: Tracer,
}

/// One of the calls that the application takes at once, until it is dropped.
/// Every call of the application needs one, except health probes, which have to
/// work while it is busy.
pub struct Permit(Option<OwnedSemaphorePermit>);

impl Permit {
    /// `body`, which is part of the call.
    fn hold(self, body: Body) -> Body {
        match self.0 {
            None => body,
            Some(permit) => body::hold(body, permit),
        }
    }
}

pub enum Kind {
    Http(http::Client),
    Grpc(grpc::Client),
}

/// Whether calls may go to the application.
#[derive(Debug, Default)]
pub struct Healthy {
    unhealthy: AtomicBool,
}

impl Healthy {
    pub fn set(&self, healthy: bool) {
        self.unhealthy.store(!healthy, Ordering::Release);
    }

    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Acquire)
    }
}

impl Channel {
    /// Calls a method of the application.
    pub async fn invoke(&self, request: message::Request) -> Result<message::Response, Status> {
        if !self.healthy.is_healthy() {
            return Err(Status::internal("app is not in a healthy state"));
        }
        let permit = self.permit().await;
        let traced = !self.tracer.is_off();
        match &self.kind {
            Kind::Http(client) => client.invoke(permit, request, !self.tracer.is_off()).await,
            Kind::Grpc(client) => client.invoke(permit, request, traced).await,
        }
    }

    /// Waits for a place among the calls that the application takes at once.
    pub async fn permit(&self) -> Permit {
        Permit(match self.limit.clone() {
            None => None,
            // The semaphore is never closed.
            Some(limit) => limit.acquire_owned().await.ok(),
        })
    }

    pub fn is_grpc(&self) -> bool {
        matches!(self.kind, Kind::Grpc(_))
    }
}
