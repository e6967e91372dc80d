//! Actors, and what is triggered for them and for the application.

use std::sync::Arc;

use outrider_actors::Actors;
use outrider_actors::reminders::Reminders;
use outrider_actors::timers::Timers;
use outrider_peer::call::Peers;
use outrider_scheduler_client::Scheduler;

use super::{Prepared, Start};
use crate::app::actors::AppActors;
use crate::app::jobs::Jobs;
use crate::app::{Failure, actors, jobs};
use crate::blocks::actors::Api;

pub(super) struct Triggers {
    pub timers: Timers,
    pub reminders: Reminders,
    pub jobs: Jobs,
}

impl Start<'_> {
    /// Operations on actors, and what says which ones the application has.
    pub(super) fn actors(
        &self,
        made: &Prepared,
        peers: Peers,
        scheduler: &Scheduler,
    ) -> Result<(Api, AppActors), Failure> {
        let blocks = &made.blocks;
        let parts = actors::Parts {
            flags: self.flags,
            settings: self.settings,
            security: &made.security,
            readiness: &self.readiness,
            registry: &made.registry,
            metrics: &made.metrics,
            components: &blocks.components,
            live: &blocks.live,
            resiliency: &blocks.resiliency,
            features: &made.features,
            peers,
            channel: made.app.channel(),
            address: made.internal.address(&self.flags.api.internal_address),
            scheduler,
            tasks: self.tasks,
        };
        parts.start()
    }

    /// What fires on time: timers of this sidecar, reminders and jobs of the
    /// scheduler.
    pub(super) fn triggers(
        &self,
        made: &Prepared,
        scheduler: &Scheduler,
        actors: &Actors,
    ) -> Triggers {
        let metrics = &made.metrics;
        let timers = actors::timers(actors, metrics, &made.registry, self.tasks);
        let reminders = Reminders {
            actors: actors.clone(),
            scheduler: scheduler.clone(),
            metrics: metrics.actors(),
            app_id: self.flags.app_id.clone(),
            namespace: self.settings.namespace.clone(),
            undelivered: Arc::default(),
        };
        let (channel, delivered) = (made.app.channel(), reminders.clone());
        let jobs = jobs::deliver(scheduler, channel, delivered, metrics, self.tasks);
        Triggers {
            timers,
            reminders,
            jobs,
        }
    }
}
