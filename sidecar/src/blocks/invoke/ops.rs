//! What an invocation means: find the target, call it, try again when it
//! could not be reached.

use outrider_call::method;
use outrider_peer::local;
use std::fmt;

use http::HeaderValue;
use outrider_resiliency::{BuiltIn, Error as Failed, Failure, Policy};
use tonic::{Code, Status};

use super::Api;
use super::address::{self, Target};
use outrider_call::message::{self, Request, Response};
use outrider_call::metadata::{self, Metadata};
use outrider_net::body;
use outrider_peer::call::Call;

impl Api {
    /// Calls a method of `target`, under the policies of that target. What the
    /// application answers is an answer, whatever its status; an error means
    /// that there is none.
    pub async fn invoke(&self, target: &str, mut request: Request) -> Result<Response, Status> {
        let is_endpoint = |name: &str| self.endpoints.load().contains_key(name);
        let to = address::target(target, &self.namespace, is_endpoint)
            .map_err(|e| local::status(Code::InvalidArgument, e))?;
        request.method = method::normal(std::mem::take(&mut request.method))?;
        let policy = self
            .resiliency
            .app(target, || self.endpoint(target, &to, &request.method));
        match policy {
            None => self.once(target, &to, request).await,
            // Kept off the way of calls without a policy.
            Some(policy) => Box::pin(self.guarded(&policy, target, &to, request)).await,
        }
    }

    /// What shares a circuit breaker.
    fn endpoint(&self, target: &str, to: &Target<'_>, method: &str) -> String {
        match to {
            Target::App { .. } => format!("{target}:{method}"),
            Target::Url(url) => format!("{url}/{method}"),
            Target::Endpoint(name) => {
                let endpoint = self.endpoints.get(name);
                let url = endpoint.map(|e| e.base_url.clone()).unwrap_or_default();
                format!("{name}:{url}")
            }
        }
    }

    async fn guarded(
        &self,
        policy: &Policy,
        target: &str,
        to: &Target<'_>,
        request: Request,
    ) -> Result<Response, Status> {
        // What passes through cannot be sent again.
        let permanent = request.is_streaming();
        let keeps = policy.has_retries() && !permanent;
        let mut request = Some(request);
        let running = policy.run(|attempt| {
            let request = match &request {
                Some(kept) if keeps => kept.again(),
                _ => request.take(),
            };
            async move {
                let answered = match request {
                    Some(request) => self.once(target, to, request).await,
                    None => Err(Status::internal("the request was sent before")),
                };
                let mut response = answered.map_err(|status| FailedCall {
                    what: What::Unreached(status),
                    permanent,
                })?;
                if let Some(deadline) = attempt.deadline {
                    response.body = body::until(response.body, deadline);
                }
                if response.is_failure() {
                    let what = What::Answer(Box::new(response));
                    return Err(FailedCall { what, permanent });
                }
                Ok(response)
            }
        });
        running.await.or_else(|failed| match failed {
            Failed::Failed(refusal) => match refusal.what {
                What::Answer(response) => Ok(*response),
                What::Unreached(status) => Err(status),
            },
            Failed::TimedOut => Err(local::status(Code::DeadlineExceeded, failed.to_string())),
            Failed::Open | Failed::TooManyRequests => {
                Err(local::status(Code::Unavailable, failed.to_string()))
            }
        })
    }

    async fn once(
        &self,
        target: &str,
        to: &Target<'_>,
        request: Request,
    ) -> Result<Response, Status> {
        match to {
            Target::Url(url) => self.external.url(url, request).await,
            Target::Endpoint(name) => match self.endpoints.get(name) {
                Some(endpoint) => self.external.endpoint(&endpoint, request).await,
                None => Err(local::status(
                    Code::NotFound,
                    format!("the HTTPEndpoint {name} was removed"),
                )),
            },
            Target::App { app_id, namespace }
                if *app_id == self.app_id && *namespace == self.namespace =>
            {
                self.itself(request).await
            }
            Target::App { app_id, namespace } => {
                let built_in = !self.resiliency.stands_in_for_built_in(target);
                self.remote(app_id, namespace, request, built_in).await
            }
        }
    }

    /// Straight to the own application.
    async fn itself(&self, mut request: Request) -> Result<Response, Status> {
        let Some(channel) = &self.channel else {
            return Err(local::status(
                Code::Internal,
                "cannot invoke local endpoint: app channel not initialized",
            ));
        };
        self.caller
            .calling(&self.app_id)
            .set_in_metadata(&mut request.metadata);
        channel.invoke(request).await.map_err(local::marked)
    }

    /// To another sidecar: again and again where it cannot be reached, unless
    /// resources say how often.
    async fn remote(
        &self,
        app_id: &str,
        namespace: &str,
        mut request: Request,
        built_in: bool,
    ) -> Result<Response, Status> {
        self.caller
            .calling(app_id)
            .set_in_metadata(&mut request.metadata);
        self.sidecars.peers.forwarded(&mut request.metadata);
        // What passes through cannot be sent again.
        let once = !built_in || request.is_streaming();
        let trace = self.trace(&request.metadata);
        let trace = trace.as_ref();
        let call = Call::new(request, app_id);
        if once {
            return self.attempt(app_id, namespace, call, trace).await;
        }
        let policy = self.resiliency.built_in(BuiltIn::Service);
        let mut retries = 0;
        let counted = &mut retries;
        let running = policy.run(move |attempt| {
            *counted = attempt.number - 1;
            let call = call.again();
            async move {
                match call {
                    Some(call) => self.attempt(app_id, namespace, call, trace).await,
                    None => Err(Status::internal("the request was sent before")),
                }
                .map_err(Unreachable)
            }
        });
        let failure = match running.await {
            Ok(response) => return Ok(response),
            Err(Failed::Failed(failure)) => failure,
            Err(other) => return Err(local::status(Code::Unavailable, other.to_string())),
        };
        if failure.is_permanent() {
            return Err(failure.0);
        }
        let text = format!(
            "failed to invoke target {app_id} after {retries} retries. Error: {}",
            outrider_net::grpc::text(&failure.0)
        );
        Err(local::status(failure.0.code(), text))
    }

    /// The context of a call, for the other sidecar.
    fn trace(&self, metadata: &Metadata) -> Option<HeaderValue> {
        if self.tracer.is_off() {
            return None;
        }
        metadata::find(metadata, outrider_trace::TRACEPARENT).cloned()
    }

    /// Finds the other sidecar anew and calls it.
    async fn attempt(
        &self,
        app_id: &str,
        namespace: &str,
        call: Call,
        trace: Option<&HeaderValue>,
    ) -> Result<Response, Status> {
        let first = self.sidecars.find(app_id, namespace).await?;
        let calling = self.calls.sent(app_id, false);
        let (target, place) = self.sidecars.reach(app_id, namespace, first).await?;
        let answered = self.sidecars.peers.call(place, call, trace).await;
        match &answered {
            Ok(response) => calling.ended(response.code.number()),
            Err(status) if is_unreachable(status) => {
                self.sidecars.suspect(app_id, namespace, &target)
            }
            Err(_) => {}
        }
        answered
    }
}

/// A call that failed in the eyes of the policies.
struct FailedCall {
    what: What,
    permanent: bool,
}

enum What {
    /// Passed on if it is the last.
    Answer(Box<Response>),
    Unreached(Status),
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Unreached(status) => f.write_str(&outrider_net::grpc::text(status)),
            What::Answer(response) => match &response.code {
                message::Code::Http(code) => write!(f, "status {code}"),
                message::Code::Grpc(status) => f.write_str(&outrider_net::grpc::text(status)),
            },
        }
    }
}

impl Failure for FailedCall {
    fn code(&self) -> Option<u16> {
        let What::Answer(response) = &self.what else {
            return None;
        };
        Some(match &response.code {
            message::Code::Http(code) => *code,
            message::Code::Grpc(status) => code_number(status.code()),
        })
    }

    fn is_permanent(&self) -> bool {
        self.permanent
    }
}

/// The number of a code on the wire.
pub fn code_number(code: Code) -> u16 {
    u16::try_from(code as i32).unwrap_or_default()
}

/// A call of another sidecar that failed.
struct Unreachable(Status);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&outrider_net::grpc::text(&self.0))
    }
}

impl Failure for Unreachable {
    fn is_permanent(&self) -> bool {
        !is_unreachable(&self.0)
    }
}

fn is_unreachable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unauthenticated)
}
