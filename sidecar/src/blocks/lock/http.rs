//! Locks over HTTP. <https://docs.dapr.io/reference/api/distributed_lock_api/>

use http::{Response, StatusCode};
use outrider_net::body::Body;

use super::{Api, decode, grpc};
use crate::blocks::error::{Result, body_read};
use crate::blocks::http::{self as api, Request};

pub async fn try_lock(api: &Api, request: Request, store: &str) -> Response<Body> {
    answer(async {
        let asked = read(request).await?;
        let (resource, owner) = (&asked.resource_id, &asked.lock_owner);
        let seconds = asked.expiry_in_seconds;
        let success = api.try_lock(store, resource, owner, seconds).await?;
        Ok(format!("{{\"success\":{success}}}"))
    })
    .await
}

pub async fn unlock(api: &Api, request: Request, store: &str) -> Response<Body> {
    answer(async {
        let asked = read(request).await?;
        let unlocked = api.unlock(store, &asked.resource_id, &asked.lock_owner);
        let status = grpc::status(unlocked.await?) as i32;
        Ok(format!("{{\"status\":{status}}}"))
    })
    .await
}

async fn read(mut request: Request) -> Result<decode::Asked> {
    let body = request.bytes().await.map_err(body_read)?;
    decode::asked(&body)
}

async fn answer(answering: impl Future<Output = Result<String>>) -> Response<Body> {
    match answering.await {
        Ok(text) => api::json(StatusCode::OK, text),
        Err(error) => error.into(),
    }
}
