//! Conversations over gRPC.

use outrider_proto::runtime::v1 as wire;
use tonic::{Response, Status};

use super::Api;

pub async fn alpha1(
    api: &Api,
    request: wire::ConversationRequest,
) -> Result<Response<wire::ConversationResponse>, Status> {
    Ok(Response::new(api.converse_alpha1(request).await?))
}

pub async fn alpha2(
    api: &Api,
    request: wire::ConversationRequestAlpha2,
) -> Result<Response<wire::ConversationResponseAlpha2>, Status> {
    Ok(Response::new(api.converse_alpha2(request).await?))
}
