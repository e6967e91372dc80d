//! To the application: HTTP or gRPC, its health, and how many calls at once.

pub mod connect;
pub mod grpc;
pub mod health;
pub mod http;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::api::invoke::message;

/// The way to the application.
pub struct Channel {
    pub kind: Kind,
    /// Present with a cap on concurrent calls.
    pub limit: Option<Arc<Semaphore>>,
    pub healthy: Arc<Healthy>,
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
    /// Calls a method of the application. The answer's body holds the place
    /// among the concurrent calls until it is read to its end.
    pub async fn invoke(&self, request: message::Request) -> Result<message::Response, Status> {
        if !self.healthy.is_healthy() {
            return Err(Status::internal("app is not in a healthy state"));
        }
        let permit = self.permit().await;
        let mut response = match &self.kind {
            Kind::Http(client) => client.invoke(request).await?,
            Kind::Grpc(client) => client.invoke(request).await?,
        };
        if let Some(permit) = permit {
            response.body = message::hold(response.body, permit);
        }
        Ok(response)
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let limit = self.limit.clone()?;
        // The semaphore is never closed.
        limit.acquire_owned().await.ok()
    }

    pub fn is_grpc(&self) -> bool {
        matches!(self.kind, Kind::Grpc(_))
    }
}
