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
use tokio::time::Instant;
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
/// Jobs of the application and reminders have streams of their own, so that
/// reminders whose actors have no host keep no job from the application.
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
    /// Nobody could do it now. It is tried again here for a while; then the
    /// scheduler gets it back.
    Undelivered,
}

/// Between tries of what could not be delivered.
const AGAIN: Duration = Duration::from_secs(1);
/// How long those go on.
const TRIES: Duration = Duration::from_secs(5);
/// How long what is under way beside may take until the stream ends, so that the
/// scheduler gets back what could not be delivered and counts no attempt.
/// Otherwise one is counted.
const GIVE_BACK: Duration = Duration::from_secs(5);

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
                        let initials = self.initials(&opened_for);
                        for _ in 0..self.0.options.streams {
                            for initial in &initials {
                                let initial = initial.clone();
                                let (host, deliver) = (host.clone(), deliver.clone());
                                streams.spawn(keep_open(host, initial, deliver, closing.clone()));
                            }
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

    /// What streams begin with: those of jobs, and those of reminders.
    fn initials(&self, wanted: &Wanted) -> Vec<wire::WatchJobsRequestInitial> {
        let initial =
            |kind: wire::JobTargetType, actor_types: &[String]| wire::WatchJobsRequestInitial {
                app_id: self.0.options.app_id.clone(),
                namespace: self.0.options.namespace.clone(),
                actor_types: actor_types.to_vec(),
                accept_job_types: vec![kind.into()],
                actor_address: Some(self.0.options.actor_address.clone()),
                supports_scheduler_placement: true,
                placement_addresses: self.0.options.placement_addresses.clone(),
                ..Default::default()
            };
        let jobs = wanted.jobs.then(|| initial(wire::JobTargetType::Job, &[]));
        let reminders = (!wanted.actor_types.is_empty())
            .then(|| initial(wire::JobTargetType::ActorReminder, &wanted.actor_types));
        jobs.into_iter().chain(reminders).collect()
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
    let mut undelivered = Undelivered::default();
    // No try follows on one under way.
    let mut ending = closing.child_token();
    loop {
        let closes = closing.is_cancelled();
        let ends = closes || undelivered.until.is_some();
        if ends && running.is_empty() {
            break;
        }
        tokio::select! {
            () = closing.cancelled(), if !closes => {}
            () = undelivered.over(), if !closes => {
                ending = closing.child_token();
                for id in undelivered.take() {
                    let status = wire::WatchJobsRequestResultStatus::Failed.into();
                    let result = wire::WatchJobsRequestResult { id, status };
                    let result = request(WatchJobRequestType::Result(result));
                    if requests_tx.send(result).await.is_err() {
                        return Ok(());
                    }
                }
            }
            trigger = triggers.message(), if !ends && running.len() < MOST_AT_ONCE => {
                let Some(trigger) = trigger? else {
                    return Ok(());
                };
                let (deliver, ending) = (deliver.clone(), ending.clone());
                running.spawn(async move { (trigger.id, one(deliver, trigger, ending).await) });
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
                    Outcome::Undelivered => {
                        undelivered.add(id);
                        ending.cancel();
                        continue;
                    }
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

/// What the scheduler is to get back.
#[derive(Default)]
struct Undelivered {
    ids: Vec<u64>,
    /// The stream ends as soon as nothing is under way; at that time it goes on
    /// instead.
    until: Option<Instant>,
}

impl Undelivered {
    fn add(&mut self, id: u64) {
        self.ids.push(id);
        self.until.get_or_insert_with(|| Instant::now() + GIVE_BACK);
    }

    fn take(&mut self) -> Vec<u64> {
        self.until = None;
        std::mem::take(&mut self.ids)
    }

    async fn over(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

async fn one(
    deliver: Arc<dyn Deliver>,
    trigger: wire::WatchJobsResponse,
    ending: CancellationToken,
) -> Outcome {
    let trigger = Trigger {
        name: trigger.name,
        metadata: trigger.metadata.unwrap_or_default(),
        data: trigger.data,
    };
    let begun = Instant::now();
    loop {
        let outcome = deliver.deliver(trigger.clone()).await;
        if outcome != Outcome::Undelivered || begun.elapsed() >= TRIES {
            return outcome;
        }
        let pausing = ending.run_until_cancelled(tokio::time::sleep(AGAIN));
        if pausing.await.is_none() {
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Nowhere(AtomicUsize);

    #[async_trait]
    impl Deliver for Nowhere {
        async fn deliver(&self, _: Trigger) -> Outcome {
            self.0.fetch_add(1, Ordering::Relaxed);
            Outcome::Undelivered
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_delivered_is_given_back_after_some_tries() {
        let nowhere = Arc::new(Nowhere(AtomicUsize::new(0)));
        let begun = Instant::now();
        let trigger = wire::WatchJobsResponse::default();
        let delivering = one(nowhere.clone(), trigger, CancellationToken::new());
        let outcome = tokio::time::timeout(TRIES * 2, delivering).await;
        assert_eq!(outcome, Ok(Outcome::Undelivered));
        assert!(begun.elapsed() >= TRIES);
        assert!(nowhere.0.load(Ordering::Relaxed) > 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_end_goes_on() {
        let mut undelivered = Undelivered::default();
        undelivered.add(1);
        undelivered.add(2);
        tokio::time::timeout(GIVE_BACK * 2, undelivered.over())
            .await
            .unwrap();
        assert_eq!(undelivered.take(), [1, 2]);
        assert!(undelivered.until.is_none());
    }
}
