//! Actors over gRPC.

use bytes::Bytes;
use outrider_actors::Actor;
use outrider_actors::apps::http::is_error;
use outrider_call::channel::Kind;
use outrider_call::message::{self, Data, Origin};
use outrider_call::metadata::{Metadata, Name, value};
use outrider_components::state::TTL_EXPIRE_TIME;
use outrider_net::{body, grpc};
use outrider_proto::runtime::v1 as wire;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::state::Wanted;
use super::{Api, error};

pub async fn invoke(
    api: &Api,
    request: Request<wire::InvokeActorRequest>,
) -> Result<Response<wire::InvokeActorResponse>, Status> {
    let headers = request.metadata().as_ref();
    let left = grpc::timeout(headers);
    let traced = headers.get(outrider_trace::TRACEPARENT).cloned();
    let request = request.into_inner();
    let mut metadata = Metadata::with_capacity(request.metadata.len() + 4);
    let mut content_type = None;
    for (name, text) in request.metadata {
        if name.eq_ignore_ascii_case("content-type") {
            content_type = Some(text);
        } else if let Some(value) = value(&text) {
            metadata.push((Name::from(name.as_str()), value));
        }
    }
    if let Some(traced) = traced {
        metadata.retain(|(name, _)| !name.is(outrider_trace::TRACEPARENT));
        metadata.push((Name::from_static(outrider_trace::TRACEPARENT), traced));
    }
    let call = message::Request {
        method: request.method,
        verb: Some(http::Method::POST),
        query: String::new(),
        metadata,
        origin: Origin::Http,
        content_type,
        content_length: Some(request.data.len() as u64),
        data_type_url: String::new(),
        body: Data::Whole(request.data),
    };
    let actor = Actor::new(request.actor_type, request.actor_id);
    let deadline = left.map(|left| Instant::now() + left);
    let mut answer = api.invoke(actor, call, deadline).await?;
    let data = body::collect(&mut answer.body, api.limit).await;
    let data = data.map_err(|cause| error::too_large(&cause))?;
    let is_error = is_error(&answer);
    let mut response = Response::new(wire::InvokeActorResponse { data });
    if is_error {
        let yes = tonic::metadata::MetadataValue::from_static("true");
        response
            .metadata_mut()
            .insert("x-daprerrorresponseheader", yes);
    }
    Ok(response)
}

pub async fn get_state(
    api: &Api,
    request: wire::GetActorStateRequest,
) -> Result<Response<wire::GetActorStateResponse>, Status> {
    let actor = Actor::new(request.actor_type, request.actor_id);
    let mut item = api
        .get_state(&actor, &request.key)
        .await?
        .unwrap_or_default();
    item.metadata.retain(|name, _| name == TTL_EXPIRE_TIME);
    Ok(Response::new(wire::GetActorStateResponse {
        data: item.value,
        metadata: item.metadata,
    }))
}

pub async fn transact(
    api: &Api,
    request: wire::ExecuteActorStateTransactionRequest,
) -> Result<Response<()>, Status> {
    let operations = request.operations.into_iter().map(|operation| {
        let value = operation.value.map(|value| Bytes::from(value.value));
        Wanted {
            operation: operation.operation_type,
            key: operation.key,
            value: value.map(outrider_components::state::Value::Binary),
            etag: None,
            metadata: operation.metadata,
        }
    });
    let actor = Actor::new(request.actor_type, request.actor_id);
    api.transact(&actor, operations.collect()).await?;
    Ok(Response::new(()))
}

/// Hosts the actors of the application that opens the stream.
pub async fn subscribe(
    api: &Api,
    requests: Streaming<wire::SubscribeActorEventsRequestAlpha1>,
) -> Result<Response<BoxStream<wire::SubscribeActorEventsResponseAlpha1>>, Status> {
    if api
        .channel
        .as_ref()
        .is_some_and(|channel| matches!(channel.kind, Kind::Http(_)))
    {
        return Err(Status::failed_precondition(
            "actor callback streaming requires a gRPC app channel",
        ));
    }
    let (dissemination, stopping) = (api.dissemination, api.stopping.clone());
    let serving =
        outrider_actors::apps::stream::serve(&api.actors, requests, dissemination, stopping);
    let events = serving.await?;
    Ok(Response::new(Box::pin(ReceiverStream::new(events))))
}
