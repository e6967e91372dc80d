//! Streams: jobs to sidecars and their answers, and the addresses of members.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use outrider_placement_engine::authority::Announced;
use outrider_proto::scheduler::v1::concurrency_limit::Target as LimitTarget;
use outrider_proto::scheduler::v1::watch_jobs_request::WatchJobRequestType;
use outrider_proto::scheduler::v1::{
    Host, JobTargetType, WatchHostsResponse, WatchJobsRequest, WatchJobsRequestInitial,
    WatchJobsRequestResultStatus, WatchJobsResponse,
};
use outrider_scheduler_engine::{Answer, Kind, Limit, StreamId, Subscription, Target};
use outrider_security::Peer;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, Streaming};

use super::{Api, SCOPE, authorise, unknown};
use crate::placement::Sidecar;
use crate::runner::{Handle, Outgoing};

/// For the first message of a stream.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);
/// Actor types, and limits, of one stream.
const MOST_NAMES: usize = 4096;
/// In bytes.
const LONGEST_ADDRESS: usize = 512;
const CLOSING: &str = "server is closing";

impl Api {
    pub(super) async fn watch(
        &self,
        peer: Option<&Peer>,
        mut requests: Streaming<WatchJobsRequest>,
    ) -> Result<JobsStream, Status> {
        let first = tokio::select! {
            () = self.stopping.cancelled() => return Err(unknown(CLOSING)),
            first = tokio::time::timeout(FIRST_MESSAGE, requests.message()) => first,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no initial request"))??;
        let initial = match first.and_then(|it| it.watch_job_request_type) {
            Some(WatchJobRequestType::Initial(initial)) => initial,
            _ => return Err(unknown("initial request is required on stream connection")),
        };
        let checked = authorise::watch(self.mtls, peer, &initial);
        checked.inspect_err(|_| self.metrics.auth_failed())?;
        let who = format!("{}/{}", initial.namespace, initial.app_id);
        let is_capable = initial.supports_scheduler_placement;
        let addresses = initial.placement_addresses.clone();
        let by_owner = self.placement.is_enabled();
        let subscription = subscription(initial, by_owner)?;
        let (stream, outgoing) = self.engine.open(subscription);
        let open = Open {
            engine: self.engine.clone(),
            stream,
            _sidecar: self.placement.connect(is_capable, &addresses),
            closed: CancellationToken::new(),
        };
        let answers = Answers {
            engine: self.engine.clone(),
            stream,
            who,
            requests,
            metrics: self.metrics.clone(),
        };
        let closed = open.closed.clone();
        self.tasks.spawn("answers", async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = answers.read() => closed.cancel(),
            }
        });
        let ended = Box::pin(open.closed.clone().cancelled_owned());
        let stopping = Box::pin(self.stopping.clone().cancelled_owned());
        Ok(JobsStream {
            outgoing,
            open,
            ended,
            stopping,
            over: false,
        })
    }
}

/// With `by_owner` a reminder is for the sidecar that has its actor, if all tell
/// their addresses.
fn subscription(initial: WatchJobsRequestInitial, by_owner: bool) -> Result<Subscription, Status> {
    let all = initial.accept_job_types.is_empty();
    let types: Vec<JobTargetType> = initial.accept_job_types().collect();
    for (index, it) in types.iter().enumerate() {
        if types[..index].contains(it) {
            let name = it.as_str_name();
            return Err(unknown(format!("duplicate target type specified: {name}")));
        }
    }
    if initial
        .actor_types
        .len()
        .max(initial.concurrency_limits.len())
        > MOST_NAMES
    {
        return Err(Status::invalid_argument(format!(
            "at most {MOST_NAMES} actor types and limits"
        )));
    }
    let target = |kind, id: &str| Target {
        kind,
        namespace: initial.namespace.as_str().into(),
        id: id.into(),
    };
    let mut targets = Vec::new();
    if all || types.contains(&JobTargetType::Job) {
        targets.push(target(Kind::Job, &initial.app_id));
    }
    if all || types.contains(&JobTargetType::ActorReminder) {
        let mut names = initial.actor_types.clone();
        names.sort();
        names.dedup();
        targets.extend(names.iter().map(|it| target(Kind::Actor, it)));
    }
    // Nothing could ever come on such a stream.
    if targets.is_empty() {
        return Err(unknown("no prefixes provided"));
    }
    let limits = initial.concurrency_limits.iter().filter_map(|limit| {
        let Some(LimitTarget::Actor(actor)) = &limit.target else {
            return None;
        };
        let key = match &limit.name {
            Some(name) => format!("{}:{name}", actor.r#type),
            None => actor.r#type.clone(),
        };
        let most = u32::try_from(limit.max_concurrent).ok()?;
        Some(Limit { key, most })
    });
    let address = initial
        .actor_address
        .filter(|it| by_owner && !it.is_empty());
    if address
        .as_ref()
        .is_some_and(|it| it.len() > LONGEST_ADDRESS)
    {
        let text = format!("an address has at most {LONGEST_ADDRESS} bytes");
        return Err(Status::invalid_argument(text));
    }
    Ok(Subscription {
        address: address.map(Into::into),
        limits: limits.collect(),
        targets,
        namespace: initial.namespace,
    })
}

/// A stream that the engine knows, until this is dropped.
struct Open {
    engine: Handle,
    stream: StreamId,
    _sidecar: Sidecar,
    closed: CancellationToken,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.closed.cancel();
        self.engine.close(self.stream);
    }
}

/// What a sidecar says about the jobs that it got.
struct Answers {
    engine: Handle,
    stream: StreamId,
    who: String,
    requests: Streaming<WatchJobsRequest>,
    metrics: crate::metrics::Metrics,
}

impl Answers {
    /// Until the sidecar ends the stream, or says something that makes no sense.
    async fn read(mut self) {
        loop {
            let request = match self.requests.message().await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(status) => {
                    if status.code() == Code::Cancelled {
                        tracing::debug!(target: SCOPE, "the stream of {} ended: {}", self.who, status.message());
                    } else {
                        tracing::warn!(target: SCOPE, "Error receiving from stream {}: {}", self.who, status.message());
                        self.metrics.receive_failed();
                    }
                    return;
                }
            };
            let Some(WatchJobRequestType::Result(result)) = request.watch_job_request_type else {
                tracing::warn!(target: SCOPE, "received nil result from stream {}", self.who);
                return;
            };
            let answer = match WatchJobsRequestResultStatus::try_from(result.status) {
                Ok(WatchJobsRequestResultStatus::Success) => Answer::Accepted,
                Ok(WatchJobsRequestResultStatus::Failed) => Answer::Failed,
                Err(_) => {
                    tracing::warn!(target: SCOPE, "unknown trigger response status from {}: {}", self.who, result.status);
                    return;
                }
            };
            self.engine.answer(self.stream, result.id, answer).await;
        }
    }
}

/// Jobs for one sidecar. What is polled has room in the window of the stream.
pub struct JobsStream {
    outgoing: Outgoing,
    open: Open,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Stream for JobsStream {
    type Item = Result<WatchJobsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.stopping.as_mut().poll(context).is_ready() {
            self.over = true;
            return Poll::Ready(Some(Err(unknown(CLOSING))));
        }
        if self.ended.as_mut().poll(context).is_ready() {
            self.over = true;
            return Poll::Ready(None);
        }
        match self.outgoing.poll_recv(context) {
            Poll::Ready(Some(response)) => {
                self.open.engine.sent(self.open.stream, response.id);
                Poll::Ready(Some(Ok(response)))
            }
            Poll::Ready(None) => {
                self.over = true;
                Poll::Ready(Some(Err(unknown(CLOSING))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// All members, and which serves placement, at once and whenever they change.
pub(super) fn hosts(
    hosts: watch::Receiver<Arc<[Announced]>>,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<WatchHostsResponse, Status>> {
    WatchStream::new(hosts)
        .filter(|hosts| std::future::ready(!hosts.is_empty()))
        .map(|hosts| {
            let host = |host: &Announced| Host {
                address: host.address.clone(),
                leader: host.is_leader,
                scheduler_placement_enabled: host.is_capable,
            };
            Ok(WatchHostsResponse {
                hosts: hosts.iter().map(host).collect(),
            })
        })
        .take_until(stopping.cancelled_owned())
}
