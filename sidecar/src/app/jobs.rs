//! The scheduler, and the application as the one who does its jobs.

use std::sync::Arc;

use outrider_call::channel::Channel;
use outrider_host::{Readiness, Tasks};
use outrider_metrics::Metrics;
use outrider_scheduler_client::{Options, Scheduler, Wanted};
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
    tasks: &Tasks,
) -> Result<Scheduler, Failure> {
    let plane = &flags.control_plane;
    let scheduler = Scheduler::new(Options {
        addresses: plane.scheduler.clone(),
        connector: security.connector_to_service("dapr-scheduler")?,
        app_id: flags.app_id.clone(),
        namespace: settings.namespace.clone(),
        streams: plane.scheduler_streams,
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

    /// No further job is taken, for good.
    pub fn finish(&self) {
        self.finished.cancel();
        self.take(false);
    }
}

/// Has the application do jobs, for as long as it takes them.
pub fn deliver(
    scheduler: &Scheduler,
    channel: Option<Arc<Channel>>,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Jobs {
    let (wanted_tx, wanted) = watch::channel(Wanted::default());
    if let Some(channel) = channel
        && scheduler.is_enabled()
    {
        let deliver = Arc::new(ToApplication {
            channel,
            metrics: metrics.jobs(),
        });
        let scheduler = scheduler.clone();
        let watching = scheduler.watch_jobs(wanted, deliver, tasks.stopping());
        tasks.spawn("jobs", watching);
    }
    Jobs {
        wanted_tx,
        finished: CancellationToken::new(),
    }
}
