//! Secrets over gRPC.

use outrider_proto::runtime::v1 as wire;
use tonic::{Response, Status};

use super::Api;

pub async fn get(
    api: &Api,
    request: wire::GetSecretRequest,
) -> Result<Response<wire::GetSecretResponse>, Status> {
    let data = api
        .get(&request.store_name, &request.key, request.metadata)
        .await?;
    Ok(Response::new(wire::GetSecretResponse { data }))
}

pub async fn bulk_get(
    api: &Api,
    request: wire::GetBulkSecretRequest,
) -> Result<Response<wire::GetBulkSecretResponse>, Status> {
    let all = api.bulk_get(&request.store_name, &request.metadata).await?;
    let data = all
        .into_iter()
        .map(|(name, secrets)| (name, wire::SecretResponse { secrets }))
        .collect();
    Ok(Response::new(wire::GetBulkSecretResponse { data }))
}
