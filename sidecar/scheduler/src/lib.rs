//! The sidecar's side of the scheduler: where its members are, calls to any of
//! them, and the jobs that all of them trigger.

mod hosts;
pub mod placement;
mod watch;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outrider_kit::duration;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_security::Connector;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use hosts::Host;
pub use watch::{Deliver, Outcome, Trigger, Wanted};

const SCOPE: &str = "dapr.runtime.scheduler";
/// Between tries of a call that no member has received.
const RETRY: Duration = Duration::from_millis(150);
/// For the answer to one call.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What a member may answer, in bytes: lists of jobs are one message.
const LARGEST: usize = 256 << 20;

pub struct Options {
    /// As configured, `host:port`. None where the scheduler is off.
    pub addresses: Vec<String>,
    pub connector: Connector,
    pub app_id: String,
    pub namespace: String,
    /// To each member.
    pub streams: usize,
    /// Where other sidecars reach this one's actors, `host:port`.
    pub actor_address: String,
    /// Of the placement service, as configured. Schedulers look whether it is
    /// there, and serve placement themselves only if not.
    pub placement_addresses: Vec<String>,
}

/// Cloning shares it.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

struct Inner {
    options: Options,
    /// The members as last announced.
    hosts: channel::Sender<Vec<Host>>,
    /// What they say about placement.
    announced: channel::Sender<placement::Announced>,
    next: AtomicUsize,
}

impl Scheduler {
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            options,
            hosts: channel::Sender::new(Vec::new()),
            announced: channel::Sender::default(),
            next: AtomicUsize::new(0),
        }))
    }

    pub fn is_enabled(&self) -> bool {
        !self.0.options.addresses.is_empty()
    }

    /// Addresses of the members that are known.
    pub fn addresses(&self) -> Vec<String> {
        let hosts = self.0.hosts.borrow();
        hosts.iter().map(|host| host.address.clone()).collect()
    }

    /// Asks one member after the other, for at most `wait`, until one has received
    /// the call. What a member answers counts, errors too.
    pub async fn call<T, F>(
        &self,
        wait: Duration,
        ask: impl Fn(SchedulerClient<Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + wait;
        loop {
            let Ok(client) = tokio::time::timeout_at(deadline, self.client()).await else {
                let wait = duration::format(wait);
                let text = format!("no scheduler is known after {wait}");
                return Err(Status::unavailable(text));
            };
            let Ok(answered) = tokio::time::timeout(ANSWER_LIMIT, ask(client)).await else {
                let limit = duration::format(ANSWER_LIMIT);
                let text = format!("the scheduler has not answered within {limit}");
                return Err(Status::deadline_exceeded(text));
            };
            match answered {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if was_not_received(&status) && Instant::now() + RETRY < deadline => {}
                Err(status) => return Err(status),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One member after the other; waits until one is known.
    async fn client(&self) -> SchedulerClient<Channel> {
        let mut changes = self.0.hosts.subscribe();
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        loop {
            {
                let hosts = changes.borrow_and_update();
                if let Some(host) = hosts.get(turn % hosts.len().max(1)) {
                    return host.client();
                }
            }
            // The sender is this one's own.
            let _ = changes.changed().await;
        }
    }
}

/// Whether no member has seen the call, so that it may be made again.
fn was_not_received(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            // Those of connecting; a connection that breaks later has others.
            return matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::NotFound
                    | ErrorKind::TimedOut
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
            );
        }
        cause = error.source();
    }
    // What a member that is about to stop answers; Dapr asks again as well.
    status.code() == Code::Cancelled
}
