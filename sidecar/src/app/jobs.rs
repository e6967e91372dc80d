//! The scheduler, and who does what it triggers: the application its jobs, actors
//! their reminders.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_actors::reminders::Reminders;
use outrider_call::channel::Channel;
use outrider_host::{Readiness, Tasks};
use outrider_metrics::Metrics;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_scheduler_client::{Deliver, Options, Outcome, Scheduler, Trigger, Wanted};
use outrider_security::Security;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use super::{Failure, SCOPE};
use crate::blocks::jobs::deliver::ToApplication;
use crate::flags::Flags;

/// A client of the scheduler, which follows its members from now on.
pub fn scheduler(
    flags: &Flags,
    settings: &Settings,
    security: &Security,
    readiness: &Readiness,
    actor_address: String,
    tasks: &Tasks,
) -> Result<Scheduler, Failure> {
    let plane = &flags.control_plane;
    let scheduler = Scheduler::new(Options {
        addresses: plane.scheduler.clone(),
        connector: security.connector_to_service("dapr-scheduler")?,
        app_id: flags.app_id.clone(),
        namespace: settings.namespace.clone(),
        streams: plane.scheduler_streams,
        actor_address,
        placement_addresses: plane.placement.clone(),
    });
    if scheduler.is_enabled() {
        let known = readiness.target("scheduler-watch-hosts");
        let following = scheduler.clone().follow_hosts(known, tasks.stopping());
        tasks.spawn("scheduler members", following);
    } else {
        tracing::info!(target: SCOPE, "No scheduler host addresses provided. Scheduler disabled");
    }
    Ok(scheduler)
}

/// Whether the application takes jobs. Cloning shares it.
#[derive(Clone)]
pub struct Jobs {
    wanted_tx: watch::Sender<Wanted>,
    /// It takes none any more.
    finished: CancellationToken,
}

impl Jobs {
    /// The application is healthy, or it is not. Jobs under way are finished.
    pub fn take(&self, takes: bool) {
        let takes = takes && !self.finished.is_cancelled();
        self.wanted_tx.send_modify(|wanted| wanted.jobs = takes);
    }

    /// No further job and no further reminder is taken, for good.
    pub fn finish(&self) {
        self.finished.cancel();
        self.wanted_tx.send_replace(Wanted::default());
    }

    /// Takes reminders of the actor types that are reported to placement.
    async fn take_reminders(self, mut types: watch::Receiver<Vec<Arc<str>>>) {
        types.mark_changed();
        while types.changed().await.is_ok() && !self.finished.is_cancelled() {
            let types = types.borrow_and_update();
            let types = types.iter().map(ToString::to_string).collect();
            self.wanted_tx.send_if_modified(|wanted| {
                let changed = wanted.actor_types != types;
                wanted.actor_types = types;
                changed
            });
        }
    }
}

/// What the scheduler triggers: jobs of the application, reminders of actors.
struct Triggered {
    jobs: Option<ToApplication>,
    reminders: Reminders,
}

#[async_trait]
impl Deliver for Triggered {
    async fn deliver(&self, trigger: Trigger) -> Outcome {
        let target = trigger.metadata.target.as_ref();
        match (target.and_then(|it| it.r#type.as_ref()), &self.jobs) {
            (Some(Type::Actor(_)), _) => self.reminders.deliver(trigger).await,
            (Some(Type::Job(_)), Some(jobs)) => jobs.deliver(trigger).await,
            _ => {
                tracing::error!(target: SCOPE, "the scheduler triggers {} for a target that this sidecar does not serve", trigger.name);
                Outcome::Failed
            }
        }
    }
}

/// Has the application do jobs for as long as it takes them, and its actors their
/// reminders.
pub fn deliver(
    scheduler: &Scheduler,
    channel: Option<Arc<Channel>>,
    reminders: Reminders,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Jobs {
    let (wanted_tx, wanted) = watch::channel(Wanted::default());
    let jobs = Jobs {
        wanted_tx,
        finished: CancellationToken::new(),
    };
    if scheduler.is_enabled() {
        if reminders.actors.status().enabled {
            tracing::info!(target: SCOPE, "Using Scheduler service for reminders.");
        }
        let types = reminders.actors.advertised();
        let following = jobs.clone().take_reminders(types);
        let stopping = tasks.stopping();
        tasks.spawn("reminders", async move {
            stopping.run_until_cancelled(following).await;
        });
        let to_application = channel.map(|channel| ToApplication {
            channel,
            metrics: metrics.jobs(),
        });
        let triggered = Arc::new(Triggered {
            jobs: to_application,
            reminders,
        });
        let scheduler = scheduler.clone();
        let watching = scheduler.watch_jobs(wanted, triggered, tasks.stopping());
        tasks.spawn("jobs", watching);
    }
    jobs
}
