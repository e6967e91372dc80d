//! Jobs that are due: streams to every member, as long as something is wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_proto::Any;
use outrider_proto::scheduler::v1 as wire;
use outrider_proto::scheduler::v1::watch_jobs_request::WatchJobRequestType;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::hosts::Host;
use crate::{SCOPE, Scheduler};

/// Between tries to open a stream; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long a scheduler may take to hear of the last results of a stream.
const LAST_RESULT: Duration = Duration::from_secs(1);
/// Jobs of one stream that are delivered at once. Others stay with the scheduler.
const MOST_AT_ONCE: usize = 1024;

/// What this sidecar takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Jobs of the application.
    pub jobs: bool,
    /// Reminders of these actor types.
    pub actor_types: Vec<String>,
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        !self.jobs && self.actor_types.is_empty()
    }
}

/// A job that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    pub name: String,
    pub metadata: wire::JobMetadata,
    pub data: Option<Any>,
}

/// What the scheduler hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It is tried again, as the job's failure policy says.
    Failed,
    /// Nobody could do it now. It is tried again here, and no attempt is counted;
    /// when the stream ends, the scheduler finds somebody else.
    Undelivered,
}

/// Between tries of what could not be delivered.
const AGAIN: Duration = Duration::from_secs(1);

/// Has jobs done.
#[async_trait]
pub trait Deliver: Send + Sync + 'static {
    async fn deliver(&self, trigger: Trigger) -> Outcome;
}

impl Scheduler {
    /// Takes what is wanted from all members, until `stopping` is cancelled. The
    /// streams are opened anew whenever something else is wanted. Jobs under way
    /// are finished first, and the scheduler hears of it.
    pub async fn watch_jobs(
        self,
        mut wanted: watch::Receiver<Wanted>,
        deliver: Arc<dyn Deliver>,
        stopping: CancellationToken,
    ) {
        let mut hosts = self.0.hosts.subscribe();
        let mut open: HashMap<String, DropGuard> = HashMap::new();
        let mut streams = JoinSet::new();
        let mut opened_for = Wanted::default();
        loop {
            let now = wanted.borrow_and_update().clone();
            if now != opened_for {
                open.clear();
                opened_for = now;
            }
            let members = hosts.borrow_and_update().clone();
            open.retain(|address, _| members.iter().any(|host| host.address == *address));
            if !opened_for.is_nothing() {
                for host in members {
                    let address = host.address.clone();
                    open.entry(address).or_insert_with(|| {
                        let closing = CancellationToken::new();
                        for _ in 0..self.0.options.streams {
                            let initial = self.initial(&opened_for);
                            let (host, deliver) = (host.clone(), deliver.clone());
                            streams.spawn(keep_open(host, initial, deliver, closing.clone()));
                        }
                        closing.drop_guard()
                    });
                }
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                changed = wanted.changed() => if changed.is_err() { break },
                // The sender is the scheduler's own.
                _ = hosts.changed() => {}
                Some(_) = streams.join_next() => {}
            }
        }
        drop(open);
        while streams.join_next().await.is_some() {}
    }

    fn initial(&self, wanted: &Wanted) -> wire::WatchJobsRequestInitial {
        let jobs = wanted.jobs.then_some(wire::JobTargetType::Job.into());
        let reminders = !wanted.actor_types.is_empty();
        let reminders = reminders.then_some(wire::JobTargetType::ActorReminder.into());
        wire::WatchJobsRequestInitial {
            app_id: self.0.options.app_id.clone(),
            namespace: self.0.options.namespace.clone(),
            actor_types: wanted.actor_types.clone(),
            accept_job_types: jobs.into_iter().chain(reminders).collect(),
            ..Default::default()
        }
    }
}

async fn keep_open(
    host: Host,
    initial: wire::WatchJobsRequestInitial,
    deliver: Arc<dyn Deliver>,
    closing: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    let mut logged = String::new();
    loop {
        let mut opened = false;
        if let Err(status) = stream(&host, initial.clone(), &deliver, &mut opened, &closing).await {
            // Each new cause once: without streams no job arrives.
            if status.message() == logged {
                tracing::debug!(target: SCOPE, "a stream of jobs to scheduler {} has failed again: {status}", host.address);
            } else {
                tracing::warn!(target: SCOPE, "a stream of jobs to scheduler {} has failed, trying again: {}", host.address, status.message());
                status.message().clone_into(&mut logged);
            }
        }
        if opened {
            pause = FIRST_PAUSE;
        }
        let pausing = closing.run_until_cancelled(tokio::time::sleep(pause));
        if pausing.await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn stream(
    host: &Host,
    initial: wire::WatchJobsRequestInitial,
    deliver: &Arc<dyn Deliver>,
    opened: &mut bool,
    closing: &CancellationToken,
) -> Result<(), Status> {
    let (requests_tx, requests) = mpsc::channel(MOST_AT_ONCE);
    let request = |request| wire::WatchJobsRequest {
        watch_job_request_type: Some(request),
    };
    let first = request(WatchJobRequestType::Initial(initial));
    // There is room for it.
    let _ = requests_tx.try_send(first);
    let mut client = host.client();
    let opening = client.watch_jobs(ReceiverStream::new(requests));
    let Some(answered) = closing.run_until_cancelled(opening).await else {
        return Ok(());
    };
    let mut triggers = answered?.into_inner();
    *opened = true;
    let mut running = JoinSet::new();
    loop {
        let closes = closing.is_cancelled();
        if closes && running.is_empty() {
            break;
        }
        tokio::select! {
            () = closing.cancelled(), if !closes => {}
            trigger = triggers.message(), if !closes && running.len() < MOST_AT_ONCE => {
                let Some(trigger) = trigger? else {
                    return Ok(());
                };
                let (deliver, closing) = (deliver.clone(), closing.clone());
                running.spawn(async move { (trigger.id, one(deliver, trigger, closing).await) });
            }
            Some(done) = running.join_next() => {
                // A delivery that panicked is never answered: the scheduler
                // triggers the job again when the stream ends.
                let Ok((id, outcome)) = done else {
                    return Err(Status::internal("a delivery has panicked"));
                };
                let status = match outcome {
                    Outcome::Success => wire::WatchJobsRequestResultStatus::Success,
                    Outcome::Failed => wire::WatchJobsRequestResultStatus::Failed,
                    // It is unanswered when the stream ends, which is soon.
                    Outcome::Undelivered => continue,
                };
                let result = wire::WatchJobsRequestResult { id, status: status.into() };
                let result = request(WatchJobRequestType::Result(result));
                if requests_tx.send(result).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    // What was sent last has arrived when the scheduler ends the stream.
    drop(requests_tx);
    let ended = async { while let Ok(Some(_)) = triggers.message().await {} };
    let _late = tokio::time::timeout(LAST_RESULT, ended).await;
    Ok(())
}

async fn one(
    deliver: Arc<dyn Deliver>,
    trigger: wire::WatchJobsResponse,
    closing: CancellationToken,
) -> Outcome {
    let trigger = Trigger {
        name: trigger.name,
        metadata: trigger.metadata.unwrap_or_default(),
        data: trigger.data,
    };
    loop {
        let outcome = deliver.deliver(trigger.clone()).await;
        if outcome != Outcome::Undelivered {
            return outcome;
        }
        let pausing = closing.run_until_cancelled(tokio::time::sleep(AGAIN));
        if pausing.await.is_none() {
            return outcome;
        }
    }
}
