//! Publishing and streaming subscriptions over gRPC.

use outrider_components::pubsub::Entry;
use outrider_proto::runtime::v1 as wire;
use tonic::{Request, Response, Status, Streaming};

use super::ops::Publish;
use super::subscribe::stream;
use super::{Api, decode};
use outrider_trace as trace;

/// How traces name the messages of a bulk request.
const BULK: &str = "/dapr.proto.runtime.v1.Dapr/BulkPublishEvent";

type Answer<T> = Result<Response<T>, Status>;

pub async fn publish(api: &Api, request: Request<wire::PublishEventRequest>) -> Answer<()> {
    let trace = trace::Parent::of_headers(request.metadata().as_ref(), trace::Wire::Grpc);
    let request = request.into_inner();
    let to = api.topic(&request.pubsub_name, &request.topic, &request.metadata)?;
    let message = Publish {
        data: request.data,
        content_type: request.data_content_type,
        metadata: request.metadata,
        trace,
    };
    api.publish(&to, message).await?;
    Ok(Response::new(()))
}

pub async fn bulk_publish(
    api: &Api,
    request: Request<wire::BulkPublishRequest>,
) -> Answer<wire::BulkPublishResponse> {
    let trace = trace::Parent::of_headers(request.metadata().as_ref(), trace::Wire::Grpc);
    let request = request.into_inner();
    let to = api.topic(&request.pubsub_name, &request.topic, &request.metadata)?;
    let entries = request.entries.into_iter().map(|entry| Entry {
        id: entry.entry_id,
        data: entry.event,
        content_type: entry.content_type,
        metadata: if entry.metadata.is_empty() {
            entry.metadata
        } else {
            decode::merged(&request.metadata, entry.metadata)
        },
    });
    let entries = entries.collect();
    let failed = api
        .bulk_publish(&to, entries, request.metadata.clone(), &trace, BULK)
        .await?;
    if failed.is_empty() {
        Ok(Response::new(wire::BulkPublishResponse::default()))
    } else {
        Err(api.partly_failed(&to, &failed).into())
    }
}

pub async fn subscribe(
    api: &Api,
    request: Request<Streaming<wire::SubscribeTopicEventsRequestAlpha1>>,
) -> Answer<stream::Responses> {
    stream::subscribe(api, request.into_inner()).await
}
