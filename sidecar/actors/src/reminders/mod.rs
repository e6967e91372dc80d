//! Reminders: what actors want to be called for later, wherever they are then.
//! The scheduler keeps them.
//! <https://docs.dapr.io/developing-applications/building-blocks/actors/actors-timers-reminders/>

mod deliver;
mod job;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use outrider_metrics::actor::Actors as Metrics;
use outrider_net::grpc;
use outrider_proto::scheduler::v1 as wire;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_scheduler_client::Scheduler;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::SCOPE;
use crate::actor::Actor;
use crate::actors::Actors;

pub use job::{Reminder, Request, Unsupported};

/// How long a call waits for a member of the scheduler that can be reached.
const WAIT: Duration = Duration::from_secs(1);

/// Why the scheduler did not do something.
#[derive(Debug)]
pub enum Cause {
    Disabled,
    Refused(Box<Status>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("scheduler clients are disabled"),
            Self::Refused(status) => f.write_str(&grpc::text(status)),
        }
    }
}

/// Why something about a reminder is not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This sidecar does not host the type.
    #[error("operations on actor reminders are only possible on hosted actor types")]
    NotHosted,
    #[error("there is no such reminder")]
    Unknown,
    #[error("there is such a reminder")]
    Exists,
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error("{0}")]
    Scheduler(Cause),
}

/// The reminders of the types that this sidecar hosts. Cloning shares it.
#[derive(Clone)]
pub struct Reminders {
    pub actors: Actors,
    pub scheduler: Scheduler,
    pub metrics: Metrics,
    pub app_id: String,
    pub namespace: String,
    /// Whether the last one has found no host for its actor.
    pub undelivered: Arc<AtomicBool>,
}

impl Reminders {
    pub async fn register(&self, actor: &Actor, request: Request) -> Result<(), Error> {
        self.check_hosted(&actor.kind).await?;
        let (name, overwrite) = (request.name.clone(), request.overwrite);
        let request = wire::ScheduleJobRequest {
            name,
            job: Some(job::of(request)?),
            metadata: Some(self.metadata(&actor.kind, &actor.id)),
            overwrite,
        };
        let scheduled = self.call(request, |mut client, request| async move {
            client.schedule_job(request).await
        });
        match scheduled.await {
            Ok(_) => Ok(()),
            Err(Cause::Refused(status)) if status.code() == Code::AlreadyExists => {
                Err(Error::Exists)
            }
            Err(cause) => Err(Error::Scheduler(cause)),
        }
    }

    pub async fn get(&self, actor: &Actor, name: &str) -> Result<Reminder, Error> {
        self.check_hosted(&actor.kind).await?;
        let request = wire::GetJobRequest {
            name: name.to_owned(),
            metadata: Some(self.metadata(&actor.kind, &actor.id)),
        };
        let found = self.call(request, |mut client, request| async move {
            client.get_job(request).await
        });
        match found.await {
            Ok(found) => {
                let job = found.job.unwrap_or_default();
                Ok(job::reminder(name.to_owned(), actor.clone(), job))
            }
            Err(Cause::Refused(status)) if status.code() == Code::NotFound => Err(Error::Unknown),
            Err(cause) => Err(Error::Scheduler(cause)),
        }
    }

    /// Deletes a reminder, if it is there.
    pub async fn delete(&self, actor: &Actor, name: &str) -> Result<(), Error> {
        self.check_hosted(&actor.kind).await?;
        let deleted = self.delete_job(actor, name).await;
        deleted.map_err(Error::Scheduler)
    }

    async fn delete_job(&self, actor: &Actor, name: &str) -> Result<(), Cause> {
        let request = wire::DeleteJobRequest {
            name: name.to_owned(),
            metadata: Some(self.metadata(&actor.kind, &actor.id)),
        };
        let deleted = self.call(request, |mut client, request| async move {
            client.delete_job(request).await
        });
        deleted.await.map(drop)
    }

    /// Deletes those of an actor, or of all actors of a type.
    pub async fn delete_all(&self, kind: &str, id: Option<&str>) -> Result<(), Error> {
        self.check_hosted(kind).await?;
        let request = wire::DeleteByMetadataRequest {
            id_prefix_match: Some(id.is_none()),
            metadata: Some(self.metadata(kind, id.unwrap_or_default())),
        };
        let deleted = self.call(request, |mut client, request| async move {
            client.delete_by_metadata(request).await
        });
        deleted.await.map(drop).map_err(Error::Scheduler)
    }

    /// Those of an actor, or of all actors of a type.
    pub async fn list(&self, kind: &str, id: Option<&str>) -> Result<Vec<Reminder>, Error> {
        self.check_hosted(kind).await?;
        let request = wire::ListJobsRequest {
            metadata: Some(self.metadata(kind, id.unwrap_or_default())),
        };
        let listed = self.call(request, |mut client, request| async move {
            client.list_jobs(request).await
        });
        let listed = listed.await.map_err(Error::Scheduler)?;
        let reminders = listed.jobs.into_iter().filter_map(|named| {
            let actor = job::actor(&named.metadata.unwrap_or_default())?;
            Some(job::reminder(
                named.name,
                actor,
                named.job.unwrap_or_default(),
            ))
        });
        Ok(reminders.collect())
    }

    async fn check_hosted(&self, kind: &str) -> Result<(), Error> {
        let hosted = self.actors.serves(kind).await;
        hosted.then_some(()).ok_or(Error::NotHosted)
    }

    fn metadata(&self, kind: &str, id: &str) -> wire::JobMetadata {
        job::metadata(&self.app_id, &self.namespace, kind, id)
    }

    async fn call<Q: Clone, A, F>(
        &self,
        request: Q,
        ask: impl Fn(SchedulerClient<Channel>, Q) -> F,
    ) -> Result<A, Cause>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        if !self.scheduler.is_enabled() {
            return Err(Cause::Disabled);
        }
        let asked = self
            .scheduler
            .call(WAIT, |client| ask(client, request.clone()));
        asked
            .await
            .map_err(|status| Cause::Refused(Box::new(status)))
    }
}
