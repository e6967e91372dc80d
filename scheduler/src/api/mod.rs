//! The API for sidecars: `dapr.proto.scheduler.v1.Scheduler`.

mod authorise;
mod convert;
mod owner;
#[cfg(test)]
mod tests;
mod watch;

use jiff::Timestamp;
use outrider_kit::{grpc, random};
use outrider_proto::scheduler::v1::scheduler_server::Scheduler;
use outrider_proto::scheduler::v1::{
    DeleteByMetadataRequest, DeleteByMetadataResponse, DeleteByNamePrefixRequest,
    DeleteByNamePrefixResponse, DeleteJobRequest, DeleteJobResponse, GetJobRequest, GetJobResponse,
    JobMetadata, ListJobsRequest, ListJobsResponse, ScheduleJobRequest, ScheduleJobResponse,
    WatchHostsRequest, WatchHostsResponse, WatchJobsRequest, WatchJobsResponse,
};
use outrider_scheduler_engine::{key, plan};
use outrider_security::Peer;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::jobs::{Created, Jobs, name_of};
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::runner::Handle;

const SCOPE: &str = "dapr.scheduler.server";

/// Serves sidecars. Cloning shares it.
#[derive(Clone)]
pub struct Api {
    pub jobs: Jobs,
    pub engine: Handle,
    pub metrics: Metrics,
    pub tasks: outrider_host::Tasks,
    pub placement: Placement,
    /// Whether callers prove who they are.
    pub mtls: bool,
    pub stopping: CancellationToken,
}

/// Most errors have no code of their own: clients know the words.
fn unknown(error: impl std::fmt::Display) -> Status {
    Status::unknown(error.to_string())
}

/// An error inside another one.
fn within(what: &str, status: &Status) -> Status {
    let cause = grpc::status(status.code() as i32, status.message());
    Status::new(status.code(), format!("{what}: {cause}"))
}

impl Api {
    /// Who may ask about jobs with this metadata.
    fn authorise(&self, peer: Option<&Peer>, metadata: &JobMetadata) -> Result<(), Status> {
        let checked = authorise::metadata(self.mtls, peer, metadata);
        checked.inspect_err(|_| self.metrics.auth_failed())
    }

    /// The same for one job of it.
    fn authorise_job(
        &self,
        peer: Option<&Peer>,
        metadata: &JobMetadata,
        created: Option<&str>,
    ) -> Result<(), Status> {
        self.authorise(peer, metadata)?;
        let checked = authorise::target(metadata, created);
        checked.inspect_err(|_| self.metrics.auth_failed())
    }

    async fn schedule(&self, request: &ScheduleJobRequest) -> Result<(), Status> {
        let metadata = request.metadata.clone().unwrap_or_default();
        let name = key::name(&metadata, &request.name).map_err(unknown)?;
        let spec = convert::to_spec(request.job.clone().unwrap_or_default(), &metadata);
        let stored = plan(spec, random::bits(), Timestamp::now());
        let stored = stored.map_err(|error| unknown(format!("job failed validation: {error}")))?;
        if owner::is_ambiguous(&metadata, &request.name)
            && let Some(kv) = self.jobs.get(&name).await?
            && !owner::has(&metadata, &kv)
        {
            let text = format!("a job of another actor has this name: '{name}'");
            return Err(Status::already_exists(text));
        }
        let value = stored.encode_to_vec();
        match self.jobs.create(&name, value, request.overwrite).await? {
            Created::New if request.overwrite => self.engine.flush().await,
            Created::New => {}
            // The result that another application sent already.
            Created::Exists if authorise::is_result_for_other(&metadata, &request.name) => {}
            Created::Exists => {
                return Err(Status::already_exists(format!(
                    "job already exists: '{name}'"
                )));
            }
        }
        Ok(())
    }

    /// What the names of the jobs begin with that a request is about.
    fn scope(
        &self,
        peer: Option<&Peer>,
        metadata: Option<&JobMetadata>,
        ids: bool,
    ) -> Result<String, Status> {
        let metadata = metadata.cloned().unwrap_or_default();
        self.authorise_job(peer, &metadata, None)?;
        // Nobody who proves to be one application reaches another one.
        let ids = ids && !(self.mtls && authorise::is_of_app(&metadata));
        key::scope(&metadata, ids).map_err(unknown)
    }

    /// Deletes all jobs whose names begin with `prefix` and that are of those
    /// whom `metadata` means.
    async fn delete_all(
        &self,
        prefix: &str,
        metadata: &JobMetadata,
        ids: bool,
    ) -> Result<(), Status> {
        let deleting = async {
            if !owner::has_id(metadata) {
                return self.jobs.delete_prefix(prefix).await;
            }
            let found = self.jobs.list(prefix).await?;
            if found.iter().all(|kv| owner::is_meant(metadata, kv, ids)) {
                return self.jobs.delete_prefix(prefix).await;
            }
            for kv in found.iter().filter(|kv| owner::is_meant(metadata, kv, ids)) {
                if let Some(name) = name_of(&kv.key) {
                    self.jobs.delete(name).await?;
                }
            }
            Ok(())
        };
        deleting.await.inspect_err(|error: &Status| {
            tracing::error!(target: SCOPE, "Failed to delete cron jobs for metadata: {}", error.message());
        })?;
        self.engine.flush().await;
        self.metrics.bulk_deleted();
        Ok(())
    }
}

#[tonic::async_trait]
impl Scheduler for Api {
    async fn schedule_job(
        &self,
        request: Request<ScheduleJobRequest>,
    ) -> Result<Response<ScheduleJobResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let metadata = request.metadata.clone().unwrap_or_default();
        let created = (!request.overwrite).then_some(request.name.as_str());
        self.authorise_job(peer.as_ref(), &metadata, created)?;
        match self.schedule(&request).await {
            Ok(()) => {
                self.metrics.created(Some(&metadata));
                Ok(Response::new(ScheduleJobResponse {}))
            }
            Err(status) => {
                tracing::error!(target: SCOPE, "error scheduling job {}: {}", request.name.escape_debug(), status.message());
                self.metrics.create_failed(Some(&metadata));
                Err(status)
            }
        }
    }

    async fn get_job(
        &self,
        request: Request<GetJobRequest>,
    ) -> Result<Response<GetJobResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let metadata = request.metadata.unwrap_or_default();
        self.authorise_job(peer.as_ref(), &metadata, None)?;
        let name = key::name(&metadata, &request.name).map_err(unknown)?;
        let Some(kv) = self.jobs.get(&name).await? else {
            return Err(Status::not_found(format!(
                "job not found: {}",
                request.name
            )));
        };
        if !owner::has(&metadata, &kv) {
            let text = format!("job not found: {}", request.name);
            return Err(Status::not_found(text));
        }
        let job = convert::from_stored(&kv).map_err(unknown)?.2;
        Ok(Response::new(GetJobResponse { job: Some(job) }))
    }

    async fn delete_job(
        &self,
        request: Request<DeleteJobRequest>,
    ) -> Result<Response<DeleteJobResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let metadata = request.metadata.unwrap_or_default();
        self.authorise_job(peer.as_ref(), &metadata, None)?;
        let name = key::name(&metadata, &request.name).map_err(unknown)?;
        if owner::is_ambiguous(&metadata, &request.name)
            && let Some(kv) = self.jobs.get(&name).await?
            && !owner::has(&metadata, &kv)
        {
            return Ok(Response::new(DeleteJobResponse {}));
        }
        self.jobs.delete(&name).await.inspect_err(|error| {
            tracing::error!(target: SCOPE, "error deleting job {}: {}", name.escape_debug(), error.message());
        })?;
        self.engine.flush().await;
        self.metrics.deleted(Some(&metadata));
        Ok(Response::new(DeleteJobResponse {}))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let prefix = self.scope(peer.as_ref(), request.metadata.as_ref(), false)?;
        let found = self.jobs.list(&prefix).await;
        let found = found.map_err(|status| within("failed to query job list", &status))?;
        let metadata = request.metadata.unwrap_or_default();
        let meant = found
            .iter()
            .filter(|kv| owner::is_meant(&metadata, kv, false));
        let jobs = meant.map(convert::named);
        let jobs = jobs.collect::<Result<_, _>>().map_err(unknown)?;
        Ok(Response::new(ListJobsResponse { jobs }))
    }

    async fn delete_by_metadata(
        &self,
        request: Request<DeleteByMetadataRequest>,
    ) -> Result<Response<DeleteByMetadataResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let ids = request.id_prefix_match.unwrap_or(false);
        let prefix = self.scope(peer.as_ref(), request.metadata.as_ref(), ids);
        let prefix = prefix.map_err(|status| within("failed to parse metadata", &status))?;
        let metadata = request.metadata.unwrap_or_default();
        self.delete_all(&prefix, &metadata, ids).await?;
        Ok(Response::new(DeleteByMetadataResponse {}))
    }

    async fn delete_by_name_prefix(
        &self,
        request: Request<DeleteByNamePrefixRequest>,
    ) -> Result<Response<DeleteByNamePrefixResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let request = request.into_inner();
        let prefix = self.scope(peer.as_ref(), request.metadata.as_ref(), false);
        let prefix = prefix.map_err(|status| within("failed to parse metadata", &status))?;
        let prefix = prefix + &request.name_prefix;
        let metadata = request.metadata.unwrap_or_default();
        self.delete_all(&prefix, &metadata, false).await?;
        Ok(Response::new(DeleteByNamePrefixResponse {}))
    }

    async fn watch_jobs(
        &self,
        request: Request<Streaming<WatchJobsRequest>>,
    ) -> Result<Response<BoxStream<WatchJobsResponse>>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let jobs = self.watch(peer.as_ref(), request.into_inner()).await?;
        Ok(Response::new(Box::pin(jobs)))
    }

    async fn watch_hosts(
        &self,
        _request: Request<WatchHostsRequest>,
    ) -> Result<Response<BoxStream<WatchHostsResponse>>, Status> {
        let hosts = watch::hosts(self.placement.hosts(), self.stopping.clone());
        Ok(Response::new(Box::pin(hosts)))
    }
}
