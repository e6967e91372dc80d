//! What the operations on jobs mean.

use std::time::Duration;

use outrider_proto::runtime::v1::Job;
use outrider_proto::scheduler::v1 as wire;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Api;
use super::error::{self, Cause};
use crate::blocks::error::Result;

/// How long a call waits for a scheduler.
const WAIT: Duration = Duration::from_secs(30);
/// The same for calls about several jobs.
const SHORT_WAIT: Duration = Duration::from_millis(500);

impl Api {
    pub async fn schedule(&self, job: Option<Job>, overwrite: bool) -> Result<()> {
        let Some(job) = job else {
            return Err(error::no_job(self));
        };
        if job.name.is_empty() {
            return Err(error::no_name(self));
        }
        if job.schedule.is_none() && job.due_time.is_none() {
            return Err(error::no_schedule(self));
        }
        let request = wire::ScheduleJobRequest {
            name: job.name,
            job: Some(wire::Job {
                schedule: job.schedule,
                repeats: job.repeats,
                due_time: job.due_time,
                ttl: job.ttl,
                data: job.data,
                failure_policy: job.failure_policy,
            }),
            metadata: Some(self.metadata()),
            overwrite,
        };
        let scheduled = self.call(WAIT, request, |mut client, request| async move {
            client.schedule_job(request).await
        });
        match scheduled.await {
            Ok(_) => Ok(()),
            Err(cause) => Err(error::schedule(self, &cause)),
        }
    }

    pub async fn get(&self, name: &str) -> Result<Job> {
        if name.is_empty() {
            return Err(error::no_name(self));
        }
        let request = wire::GetJobRequest {
            name: name.to_owned(),
            metadata: Some(self.metadata()),
        };
        let found = self.call(WAIT, request, |mut client, request| async move {
            client.get_job(request).await
        });
        let found = found.await.map_err(|cause| error::get(self, &cause))?;
        Ok(job(name.to_owned(), found.job.unwrap_or_default()))
    }

    pub async fn delete(&self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(error::no_name(self));
        }
        let request = wire::DeleteJobRequest {
            name: name.to_owned(),
            metadata: Some(self.metadata()),
        };
        let deleted = self.call(WAIT, request, |mut client, request| async move {
            client.delete_job(request).await
        });
        match deleted.await {
            Ok(_) => Ok(()),
            Err(cause) => Err(error::delete(self, &cause)),
        }
    }

    /// All of the application for an empty prefix.
    pub async fn delete_by_prefix(&self, prefix: String) -> Result<()> {
        let request = wire::DeleteByNamePrefixRequest {
            name_prefix: prefix,
            metadata: Some(self.metadata()),
        };
        let deleted = self.call(SHORT_WAIT, request, |mut client, request| async move {
            client.delete_by_name_prefix(request).await
        });
        match deleted.await {
            Ok(_) => Ok(()),
            Err(cause) => Err(error::delete(self, &cause)),
        }
    }

    pub async fn list(&self) -> Result<Vec<Job>> {
        let request = wire::ListJobsRequest {
            metadata: Some(self.metadata()),
        };
        let listed = self.call(SHORT_WAIT, request, |mut client, request| async move {
            client.list_jobs(request).await
        });
        let listed = listed.await.map_err(|cause| error::list(self, &cause))?;
        let jobs = listed.jobs.into_iter();
        Ok(jobs
            .map(|named| job(named.name, named.job.unwrap_or_default()))
            .collect())
    }

    fn metadata(&self) -> wire::JobMetadata {
        wire::JobMetadata {
            app_id: self.app_id.clone(),
            namespace: self.namespace.clone(),
            target: Some(wire::JobTargetMetadata {
                r#type: Some(Type::Job(wire::TargetJob {})),
            }),
            ..Default::default()
        }
    }

    async fn call<Q: Clone, A, F>(
        &self,
        wait: Duration,
        request: Q,
        ask: impl Fn(SchedulerClient<Channel>, Q) -> F,
    ) -> std::result::Result<A, Cause>
    where
        F: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        if !self.scheduler.is_enabled() {
            return Err(Cause::Disabled);
        }
        let asked = self
            .scheduler
            .call(wait, |client| ask(client, request.clone()));
        asked
            .await
            .map_err(|status| Cause::Refused(Box::new(status)))
    }
}

fn job(name: String, job: wire::Job) -> Job {
    Job {
        name,
        schedule: job.schedule,
        repeats: job.repeats,
        due_time: job.due_time,
        ttl: job.ttl,
        data: job.data,
        failure_policy: job.failure_policy,
    }
}
