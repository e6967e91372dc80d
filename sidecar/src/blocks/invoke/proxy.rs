//! Calls of gRPC services that are not the sidecar's own, passed on as they
//! came.
//! <https://docs.dapr.io/developing-applications/building-blocks/service-invocation/howto-invoke-services-grpc/>

use http::{HeaderMap, Response};
use outrider_call::method;
use outrider_resiliency::{Attempt, Error as Failed, Policy};
use outrider_security::{Peer, acl};
use tonic::{Code, Status};

use super::address::APP_ID;
use super::replay::{self, FailedAttempt, Replay};
use super::{Api, address};
use outrider_call::channel::Kind;
use outrider_call::headers::{self, CALLEE_ID, Parties};
use outrider_metrics::service::Passed;
use outrider_net::body::{self, Body};
use outrider_net::grpc;
use outrider_net::pool;
use outrider_net::server::phase::Incoming;
use outrider_peer::serve::Callee;

/// Says that a call is a stream rather than one message each way.
const STREAM: &str = "dapr-stream";
/// Services of applications that their sidecars call.
const CALLBACKS: &str = "/dapr.proto.runtime.v1.AppCallback";

/// A call by a client of this sidecar.
pub async fn outbound(api: &Api, request: http::Request<Incoming>) -> Response<Body> {
    let passed = async {
        let text = target(request.headers()).ok_or_else(no_target)?;
        let is_endpoint = |_: &str| false;
        let found = address::target(&text, &api.namespace, is_endpoint)
            .map_err(Status::invalid_argument)?;
        let address::Target::App { app_id, namespace } = found else {
            return Err(Status::invalid_argument(format!(
                "failed to proxy request: {text} is not an app id"
            )));
        };
        let mut outgoing = passing(request);
        headers::complete_trace(outgoing.headers_mut());
        if app_id == api.app_id && namespace == api.namespace {
            let own = api.caller.calling(&api.app_id);
            own.set_in_headers(outgoing.headers_mut());
            return local(api.channel.as_deref(), None, outgoing, None).await;
        }
        method::proxied(outgoing.uri().path())?;
        let call = Outgoing {
            api,
            app_id,
            namespace,
        };
        let path = outgoing.uri().path();
        match api.resiliency.app(&text, || format!("{text}:{path}")) {
            None => {
                let peer = api
                    .sidecars
                    .find(call.app_id, call.namespace)
                    .await
                    .map_err(plain)?;
                call.forward(peer, outgoing).await
            }
            // Kept off the way of calls without a policy.
            Some(policy) => Box::pin(call.guarded(&policy, outgoing)).await,
        }
    };
    passed
        .await
        .unwrap_or_else(|status: Status| grpc::refuse(&status))
}

/// A call on its way to another sidecar.
struct Outgoing<'a> {
    api: &'a Api,
    app_id: &'a str,
    namespace: &'a str,
}

impl Outgoing<'_> {
    async fn forward(
        &self,
        peer: pool::Destination,
        mut request: http::Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (api, app_id) = (self.api, self.app_id);
        let calling = api.calls.sent(app_id, is_stream(request.headers()));
        api.caller
            .calling(app_id)
            .set_in_headers(request.headers_mut());
        let answered = match api.sidecars.reach(app_id, self.namespace, peer).await {
            Ok((peer, place)) => place.send(request).await.inspect_err(|_| {
                api.sidecars.suspect(app_id, self.namespace, &peer);
            }),
            Err(status) => Err(status),
        };
        match answered {
            Ok(answer) => Ok(Passed::answer(calling, answer)),
            Err(status) => {
                calling.ended(status.code() as u32);
                Err(status)
            }
        }
    }

    async fn find(&self) -> Result<pool::Destination, FailedAttempt> {
        let found = self.api.sidecars.find(self.app_id, self.namespace).await;
        found.map_err(|status| FailedAttempt::Failed(plain(status)))
    }

    async fn guarded(
        &self,
        policy: &Policy,
        request: http::Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let result = if is_stream(request.headers()) {
            match self.connect(policy).await {
                Ok(peer) => return self.forward(peer, request).await,
                Err(failed) => Err(failed),
            }
        } else if policy.has_retries() {
            let replay = Replay::read(request, self.api.sidecars.peers.limit).await?;
            let running = policy.run(|attempt| {
                let request = replay.request();
                let replay = &replay;
                async move {
                    let answered = self.unary(request, attempt).await;
                    let answered = match replay.streaming() {
                        Some(status) => return Err(FailedAttempt::Final(status)),
                        None => answered?,
                    };
                    Ok(answered.map(|body| replay.watch(body)))
                }
            });
            running.await
        } else {
            let mut request = Some(request);
            let running = policy.run(|attempt| {
                let request = request.take();
                async move {
                    let Some(request) = request else {
                        return Err(FailedAttempt::Final(Status::internal(
                            "the call was made before",
                        )));
                    };
                    self.unary(request, attempt).await
                }
            });
            running.await
        };
        result.or_else(|failed| match failed {
            Failed::Failed(FailedAttempt::Answer(answer, _)) => Ok(*answer),
            Failed::Failed(FailedAttempt::Failed(status) | FailedAttempt::Final(status)) => {
                Err(status)
            }
            Failed::TimedOut => Err(Status::deadline_exceeded(failed.to_string())),
            Failed::Open | Failed::TooManyRequests => Err(Status::unknown(failed.to_string())),
        })
    }

    /// Of a stream, policies are for its begin only.
    async fn connect(&self, policy: &Policy) -> Result<pool::Destination, Failed<FailedAttempt>> {
        policy
            .run(|_| async {
                let peer = self.find().await?;
                let reached = self
                    .api
                    .sidecars
                    .reach(self.app_id, self.namespace, peer)
                    .await;
                let (peer, _) = reached.map_err(FailedAttempt::Failed)?;
                Ok(peer)
            })
            .await
    }

    /// A call with one message each way, as far as is known.
    async fn unary(
        &self,
        request: http::Request<Body>,
        attempt: Attempt,
    ) -> Result<Response<Body>, FailedAttempt> {
        let peer = self.find().await?;
        let answered = self.forward(peer, request).await;
        let answer = replay::examine(answered.map_err(FailedAttempt::Failed)?).await?;
        Ok(match attempt.deadline {
            None => answer,
            Some(deadline) => {
                answer.map(|body| replay::closing(body::until(body, deadline), || None))
            }
        })
    }
}

/// Whether the client says that a call is a stream.
fn is_stream(headers: &HeaderMap) -> bool {
    let said = headers.get(STREAM).and_then(|v| v.to_str().ok());
    said.is_some_and(outrider_kit::truthy)
}

/// A call by another sidecar, for this one's application.
pub async fn inbound(
    app_id: &str,
    callee: &Callee,
    request: http::Request<Incoming>,
    peer: Option<&Peer>,
) -> Response<Body> {
    let passed = async {
        let text = target(request.headers()).ok_or_else(no_target)?;
        if text.split('.').next() != Some(app_id) {
            return Err(Status::not_found(format!(
                "failed to proxy request: this is the sidecar of {app_id}, not of {text}"
            )));
        }
        let mut request = passing(request);
        let last = |name: &str| {
            let mut values = request.headers().get_all(name).iter();
            values.next_back().cloned()
        };
        let parties = Parties::of_peer(peer, last, callee.app_id.clone());
        parties.set_in_headers(request.headers_mut());
        local(callee.channel.as_deref(), Some(callee), request, peer).await
    };
    passed
        .await
        .unwrap_or_else(|status: Status| grpc::refuse(&status))
}

async fn local(
    channel: Option<&outrider_call::channel::Channel>,
    callee: Option<&Callee>,
    request: http::Request<Body>,
    peer: Option<&Peer>,
) -> Result<Response<Body>, Status> {
    let Some(channel) = channel else {
        return Err(Status::internal("app channel is not initialized"));
    };
    let Kind::Grpc(client) = &channel.kind else {
        return Err(Status::failed_precondition(
            "failed to proxy request: the application does not speak gRPC: set its protocol to grpc",
        ));
    };
    let path = method::proxied(request.uri().path())?;
    if let Some(callee) = callee {
        let caller = peer.and_then(|p| p.id.as_ref());
        // The service by which sidecars deliver to their application takes the
        // method in its message, past the names that a list has.
        if path.starts_with(CALLBACKS) && !callee.allows_all(caller) {
            let denied = "the service of the application for its sidecar is not proxied for callers who may not call everything: invoke the method";
            return Err(Status::permission_denied(denied));
        }
        callee.admit(caller, path, acl::Call::Grpc)?;
    }
    if !channel.healthy.is_healthy() {
        return Err(Status::internal("app is not in a healthy state"));
    }
    client.forward(channel.permit().await, request).await
}

/// The request without what concerned this hop.
fn passing(request: http::Request<Incoming>) -> http::Request<Body> {
    let (mut parts, incoming) = request.into_parts();
    parts.headers.remove(APP_ID);
    parts.headers.remove(http::header::HOST);
    parts.extensions.clear();
    http::Request::from_parts(parts, body::stream(incoming))
}

fn target(headers: &HeaderMap) -> Option<String> {
    let find = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .filter(|v| !v.is_empty())
    };
    find(CALLEE_ID).or_else(|| find(APP_ID)).map(str::to_owned)
}

/// Whether a call names this sidecar's own application.
pub fn is_for(api: &Api, headers: &HeaderMap) -> bool {
    target(headers).is_some_and(|target| target == api.app_id)
}

/// Whether a call names an application.
pub fn is_addressed(headers: &HeaderMap) -> bool {
    headers.contains_key(CALLEE_ID) || headers.contains_key(APP_ID)
}

fn no_target() -> Status {
    Status::new(
        Code::Unknown,
        "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found",
    )
}

fn plain(status: Status) -> Status {
    Status::new(status.code(), status.message())
}
