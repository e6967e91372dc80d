//! Streams of changes, message by message.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use outrider_crds::{Component, Configuration, HttpEndpoint, Kind, Resiliency, Subscription};
use outrider_proto::operator::v1::{self as wire, ResourceEventType as Type};
use tonic::{Response, Status, Streaming};

use super::SCOPE;
use super::client::{Error, one};
use crate::resources::wanted::Change;

/// What an operator that answers takes to open a stream; others say nothing
/// before the first change. Until this has passed the resources are not listed
/// again, so what changes meanwhile is seen later.
const ANSWER: Duration = Duration::from_millis(10);

pub type Opened<E> = Result<Response<Streaming<E>>, Status>;

/// A stream of changes.
pub enum Events<E> {
    /// The operator has not answered yet, as some do only with the first
    /// change.
    Opening(BoxFuture<'static, Opened<E>>),
    Open(Box<Streaming<E>>),
}

/// A message of such a stream.
pub trait Event: Send + 'static {
    type Resource: Kind;

    /// The resource as JSON, and what happened to it.
    fn parts(&self) -> (&[u8], i32);
}

impl Event for wire::ComponentUpdateEvent {
    type Resource = Component;

    fn parts(&self) -> (&[u8], i32) {
        (&self.component, self.r#type)
    }
}

impl Event for wire::SubscriptionUpdateEvent {
    type Resource = Subscription;

    fn parts(&self) -> (&[u8], i32) {
        (&self.subscription, self.r#type)
    }
}

impl Event for wire::ConfigurationUpdateEvent {
    type Resource = Configuration;

    fn parts(&self) -> (&[u8], i32) {
        (&self.configuration, self.r#type)
    }
}

impl Event for wire::HttpEndpointUpdateEvent {
    type Resource = HttpEndpoint;

    fn parts(&self) -> (&[u8], i32) {
        (&self.http_endpoints, self.r#type)
    }
}

impl Event for wire::ResiliencyUpdateEvent {
    type Resource = Resiliency;

    fn parts(&self) -> (&[u8], i32) {
        (&self.resiliency, self.r#type)
    }
}

impl<E: Event> Events<E> {
    /// Sends the call, and waits a moment for the answer.
    pub async fn open(
        call: impl Future<Output = Opened<E>> + Send + 'static,
    ) -> Result<Self, Error> {
        let mut call = call.boxed();
        Ok(match tokio::time::timeout(ANSWER, &mut call).await {
            Ok(answer) => Self::Open(Box::new(answer?.into_inner())),
            Err(_) => Self::Opening(call),
        })
    }

    /// The next change that can be read; an error if the stream has ended.
    pub async fn next(&mut self) -> Result<Change<E::Resource>, Error> {
        if let Self::Opening(call) = self {
            *self = Self::Open(Box::new(call.await?.into_inner()));
        }
        loop {
            let message = match self {
                Self::Open(stream) => stream.message().await?,
                Self::Opening(_) => None,
            };
            let ended = || Status::unavailable("the operator ended the stream");
            let event = message.ok_or_else(ended)?;
            let (bytes, kind) = event.parts();
            match one(bytes) {
                Ok(resource) if kind == Type::Deleted as i32 => {
                    return Ok(Change::Deleted(resource));
                }
                Ok(resource) => return Ok(Change::Set(resource)),
                Err(error) => tracing::error!(target: SCOPE, "{error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_says_nothing_at_first_holds_up_the_listing_for_a_moment_only() {
        let started = Instant::now();
        let silent = std::future::pending::<Opened<wire::ComponentUpdateEvent>>();
        let events = Events::open(silent).await;
        assert!(matches!(events, Ok(Events::Opening(_))));
        assert!(started.elapsed() <= Duration::from_millis(20));
    }
}
