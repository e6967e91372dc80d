//! Locks over gRPC.

use outrider_components::lock::Unlocked;
use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::unlock_response::Status as Released;
use tonic::{Response, Status};

use super::Api;

pub async fn try_lock(
    api: &Api,
    request: &wire::TryLockRequest,
) -> Result<Response<wire::TryLockResponse>, Status> {
    let (resource, owner) = (&request.resource_id, &request.lock_owner);
    let seconds = request.expiry_in_seconds;
    let taken = api.try_lock(&request.store_name, resource, owner, seconds);
    let success = taken.await?;
    Ok(Response::new(wire::TryLockResponse { success }))
}

pub async fn unlock(
    api: &Api,
    request: &wire::UnlockRequest,
) -> Result<Response<wire::UnlockResponse>, Status> {
    let (resource, owner) = (&request.resource_id, &request.lock_owner);
    let unlocked = api.unlock(&request.store_name, resource, owner).await?;
    let status = status(unlocked).into();
    Ok(Response::new(wire::UnlockResponse { status }))
}

/// Clients over HTTP get its number.
pub fn status(unlocked: Unlocked) -> Released {
    match unlocked {
        Unlocked::Released => Released::Success,
        Unlocked::Absent => Released::LockDoesNotExist,
        Unlocked::OfAnother => Released::LockBelongsToOthers,
    }
}
