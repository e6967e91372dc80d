//! The way to a sidecar of another application: who it is, and a place on a
//! connection to it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use outrider_components::resolve::{Request, Resolver};
use tonic::{Code, Status};

use crate::call::Peers;
use crate::local;
use outrider_net::connection::Place;
use outrider_net::pool::Destination;

/// Empty answers of a resolver are asked again this often.
const RESOLVE_TRIES: u32 = 6;
const RESOLVE_PAUSE: Duration = Duration::from_millis(100);
/// A sidecar that cannot be connected to in this time is no longer waited for
/// alone: an address may outlive the pod that had it, and nobody answers there
/// (RFC 8305, section 5).
const ANOTHER_AFTER: Duration = Duration::from_millis(250);
/// Where no other is known, they are asked for less and less often.
const ANOTHER_AT_LEAST: Duration = Duration::from_secs(2);

/// The sidecars of other applications.
pub struct Sidecars {
    pub peers: Peers,
    /// None if it could not be made.
    pub resolver: Option<Arc<dyn Resolver>>,
}

impl Sidecars {
    /// A sidecar of the application, any of them if there are several.
    pub async fn find(&self, app_id: &str, namespace: &str) -> Result<Destination, Status> {
        let Some(resolver) = &self.resolver else {
            return Err(local::status(
                Code::Internal,
                "name resolver not initialized",
            ));
        };
        let request = self.request(app_id, namespace);
        for _ in 0..RESOLVE_TRIES {
            let address = resolver
                .resolve(&request)
                .await
                .map_err(|e| local::status(Code::Internal, e.to_string()))?;
            if !address.is_empty() {
                return Ok(Destination {
                    address,
                    app: Some((namespace.to_owned(), app_id.to_owned())),
                });
            }
            tokio::time::sleep(RESOLVE_PAUSE).await;
        }
        Err(local::status(
            Code::Internal,
            format!("failed to resolve address for '{app_id}'"),
        ))
    }

    /// A place at `first`, or at another sidecar of the same application where
    /// that one takes long.
    pub async fn reach(
        &self,
        app_id: &str,
        namespace: &str,
        first: Destination,
    ) -> Result<(Destination, Place), Status> {
        match self.peers.open(&first) {
            Some(place) => Ok((first, place)),
            // Kept off the way of calls that find a connection.
            None => Box::pin(self.race(app_id, namespace, first)).await,
        }
    }

    /// Dials one sidecar after the other until one answers: the next at once
    /// where one refuses, soon where one is silent. The silent ones are dialled
    /// on, for the calls to come.
    async fn race(
        &self,
        app_id: &str,
        namespace: &str,
        first: Destination,
    ) -> Result<(Destination, Place), Status> {
        let dial = async |target: Destination| {
            let placed = self.peers.place(&target).await;
            (target, placed)
        };
        let mut pause = ANOTHER_AFTER;
        let mut tried = vec![first.clone()];
        let mut dials = FuturesUnordered::from_iter([dial(first)]);
        loop {
            let another = async {
                tokio::time::sleep(pause).await;
                for slow in &tried {
                    self.avoid(app_id, namespace, slow);
                }
                self.find(app_id, namespace).await
            };
            let (found, failed) = tokio::select! {
                Some((target, placed)) = dials.next() => match placed {
                    Ok(place) => return Ok((target, place)),
                    Err(status) => {
                        self.suspect(app_id, namespace, &target);
                        let find = self.find(app_id, namespace);
                        let found = tokio::time::timeout(ANOTHER_AFTER, find).await;
                        (found.ok().and_then(Result::ok), Some(status))
                    }
                },
                found = another => (found.ok(), None),
            };
            match (found.filter(|found| !tried.contains(found)), failed) {
                (Some(found), _) => {
                    pause = ANOTHER_AFTER;
                    tried.push(found.clone());
                    dials.push(dial(found));
                }
                (None, Some(status)) if dials.is_empty() => return Err(status),
                (None, _) => pause = (pause * 2).min(ANOTHER_AT_LEAST),
            }
        }
    }

    /// Nothing answered there, or no longer.
    pub fn suspect(&self, app_id: &str, namespace: &str, target: &Destination) {
        self.peers.forget(target);
        self.avoid(app_id, namespace, target);
    }

    fn avoid(&self, app_id: &str, namespace: &str, target: &Destination) {
        if let Some(resolver) = &self.resolver {
            resolver.suspect(&self.request(app_id, namespace), &target.address);
        }
    }

    fn request<'a>(&self, app_id: &'a str, namespace: &'a str) -> Request<'a> {
        Request {
            app_id,
            namespace,
            port: self.peers.own_port,
        }
    }
}

#[cfg(test)]
mod tests;
