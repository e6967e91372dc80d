//! What an invocation means: find the target, call it, try again when it
//! could not be reached.

use std::time::Duration;

use outrider_components::resolve;
use tonic::{Code, Status};

use super::address::{self, Target};
use super::message::{Request, Response};
use super::{Api, error, headers};
use crate::peer::pool;

/// Tries after the first, where nothing else is configured.
const RETRIES: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Empty answers of a resolver are asked again this often.
const RESOLVE_TRIES: u32 = 6;
const RESOLVE_PAUSE: Duration = Duration::from_millis(100);

impl Api {
    /// Calls a method of `target`. What the application answers is an answer,
    /// whatever its status; an error means that there is none.
    pub async fn invoke(&self, target: &str, mut request: Request) -> Result<Response, Status> {
        let is_endpoint = |name: &str| self.live.http_endpoints.load().contains_key(name);
        let target = address::target(target, &self.namespace, is_endpoint)
            .map_err(|e| error::local(Code::InvalidArgument, e))?;
        request.method =
            address::method(&request.method).map_err(|e| error::local(Code::InvalidArgument, e))?;
        match target {
            Target::Url(url) => self.external.url(&url, request).await,
            Target::Endpoint(name) => match self.live.http_endpoints.get(&name) {
                Some(endpoint) => self.external.endpoint(&endpoint, request).await,
                None => Err(error::local(
                    Code::NotFound,
                    format!("the HTTPEndpoint {name} was removed"),
                )),
            },
            Target::App { app_id, namespace }
                if app_id == self.app_id && namespace == self.namespace =>
            {
                self.itself(request).await
            }
            Target::App { app_id, namespace } => self.remote(app_id, namespace, request).await,
        }
    }

    /// Straight to the own application.
    async fn itself(&self, mut request: Request) -> Result<Response, Status> {
        let Some(channel) = &self.channel else {
            return Err(error::local(
                Code::Internal,
                "cannot invoke local endpoint: app channel not initialized",
            ));
        };
        self.sign(&mut request, &self.app_id);
        channel
            .invoke(request)
            .await
            .map_err(|status| error::local(status.code(), status.message()))
    }

    /// Says who calls, whatever the client said.
    fn sign(&self, request: &mut Request, callee: &str) {
        request.metadata.retain(|(name, _)| {
            !name.eq_ignore_ascii_case(headers::CALLER_ID)
                && !name.eq_ignore_ascii_case(headers::CALLER_NAMESPACE)
                && !name.eq_ignore_ascii_case(headers::CALLEE_ID)
        });
        for (name, value) in [
            (headers::CALLER_ID, self.app_id.as_str()),
            (headers::CALLER_NAMESPACE, self.namespace.as_str()),
            (headers::CALLEE_ID, callee),
        ] {
            request.metadata.push((name.to_owned(), value.to_owned()));
        }
    }

    async fn remote(
        &self,
        app_id: String,
        namespace: String,
        mut request: Request,
    ) -> Result<Response, Status> {
        self.sign(&mut request, &app_id);
        self.peers.forwarded(&mut request.metadata);
        let mut tried = 0;
        loop {
            let again = request.again();
            let target = self.find(&app_id, &namespace).await?;
            let calling = self.calls.sent(&app_id, false);
            let failure = match self.peers.call(&target, &app_id, request).await {
                Ok(response) => {
                    calling.answered(&response.code);
                    return Ok(response);
                }
                Err(status) => status,
            };
            if !matches!(failure.code(), Code::Unavailable | Code::Unauthenticated) {
                return Err(failure);
            }
            self.suspect(&app_id, &namespace, &target);
            let Some(next) = again.filter(|_| tried < RETRIES) else {
                if tried == 0 {
                    return Err(failure);
                }
                let text = crate::grpc::text(&failure);
                return Err(error::local(
                    failure.code(),
                    format!(
                        "failed to invoke target {app_id} after {tried} retries. Error: {text}"
                    ),
                ));
            };
            if tried == 0 {
                tracing::info!(target: "dapr.runtime.direct_messaging", "Error processing operation DaprBuiltInServiceRetries. Retrying in 1s\u{2026}");
                tracing::debug!(target: "dapr.runtime.direct_messaging", "Error for operation DaprBuiltInServiceRetries was: {}", crate::grpc::text(&failure));
            }
            tried += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
            request = next;
        }
    }

    fn request(&self, app_id: &str, namespace: &str) -> resolve::Request {
        resolve::Request {
            app_id: app_id.to_owned(),
            namespace: namespace.to_owned(),
            port: self.peers.own_port,
        }
    }

    /// The sidecar of an application.
    pub async fn find(&self, app_id: &str, namespace: &str) -> Result<pool::Target, Status> {
        let Some(resolver) = &self.resolver else {
            return Err(error::local(
                Code::Internal,
                "name resolver not initialized",
            ));
        };
        let request = self.request(app_id, namespace);
        for _ in 0..RESOLVE_TRIES {
            let address = resolver
                .resolve(&request)
                .await
                .map_err(|e| error::local(Code::Internal, e.to_string()))?;
            if !address.is_empty() {
                return Ok(pool::Target {
                    address,
                    app: Some((namespace.to_owned(), app_id.to_owned())),
                });
            }
            tokio::time::sleep(RESOLVE_PAUSE).await;
        }
        Err(error::local(
            Code::Internal,
            format!("failed to resolve address for '{app_id}'"),
        ))
    }

    fn suspect(&self, app_id: &str, namespace: &str, target: &pool::Target) {
        self.peers.forget(target);
        if let Some(resolver) = &self.resolver {
            resolver.suspect(&self.request(app_id, namespace), &target.address);
        }
    }
}
