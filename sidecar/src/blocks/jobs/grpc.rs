//! Jobs over gRPC. What was alpha has the same answers.

use outrider_proto::runtime::v1 as wire;
use tonic::{Response, Status};

use super::Api;

pub async fn schedule(
    api: &Api,
    request: wire::ScheduleJobRequest,
) -> Result<Response<wire::ScheduleJobResponse>, Status> {
    api.schedule(request.job, request.overwrite).await?;
    Ok(Response::new(wire::ScheduleJobResponse {}))
}

pub async fn get(
    api: &Api,
    request: wire::GetJobRequest,
) -> Result<Response<wire::GetJobResponse>, Status> {
    let job = Some(api.get(&request.name).await?);
    Ok(Response::new(wire::GetJobResponse { job }))
}

pub async fn delete(
    api: &Api,
    request: wire::DeleteJobRequest,
) -> Result<Response<wire::DeleteJobResponse>, Status> {
    api.delete(&request.name).await?;
    Ok(Response::new(wire::DeleteJobResponse {}))
}
