//! State over gRPC.

use bytes::Bytes;
use outrider_components::state::{
    Concurrency, Consistency, DeleteRequest, GetRequest, Operation, SetRequest, Value,
};
use outrider_proto::common::v1::state_options::{StateConcurrency, StateConsistency};
use outrider_proto::common::v1::{Etag, StateItem, StateOptions};
use outrider_proto::runtime::v1 as wire;
use outrider_trace::{Parent, Wire};
use tonic::{Request, Response, Status};

use super::{Api, error};
use crate::blocks::json;
use crate::blocks::json::shape::Shape;

type Answer<T> = Result<Response<T>, Status>;

pub async fn get(api: &Api, request: wire::GetStateRequest) -> Answer<wire::GetStateResponse> {
    let get = GetRequest {
        key: request.key,
        metadata: request.metadata,
        consistency: consistency(request.consistency),
    };
    let item = store(api, &request.store_name)?
        .get(get)
        .await?
        .unwrap_or_default();
    Ok(Response::new(wire::GetStateResponse {
        data: item.value,
        etag: item.etag.unwrap_or_default(),
        metadata: item.metadata,
    }))
}

pub async fn bulk_get(
    api: &Api,
    request: wire::GetBulkStateRequest,
) -> Answer<wire::GetBulkStateResponse> {
    let requests = request
        .keys
        .into_iter()
        .map(|key| GetRequest {
            key,
            metadata: request.metadata.clone(),
            ..GetRequest::default()
        })
        .collect();
    let items = store(api, &request.store_name)?
        .bulk_get(requests, request.parallelism.into())
        .await?;
    let items = items
        .into_iter()
        .map(|item| match item.result {
            Err(cause) => wire::BulkStateItem {
                key: item.key,
                error: cause.to_string(),
                ..Default::default()
            },
            Ok(found) => {
                let found = found.unwrap_or_default();
                wire::BulkStateItem {
                    key: item.key,
                    data: found.value,
                    etag: found.etag.unwrap_or_default(),
                    metadata: found.metadata,
                    error: String::new(),
                }
            }
        })
        .collect();
    Ok(Response::new(wire::GetBulkStateResponse { items }))
}

pub async fn save(api: &Api, request: wire::SaveStateRequest) -> Answer<()> {
    let store = store(api, &request.store_name)?;
    let mut sets = Vec::with_capacity(request.states.len());
    for item in request.states {
        if item.key.is_empty() {
            return Err(error::key_empty().into());
        }
        sets.push(set_in(&store, item)?);
    }
    store.save(sets).await?;
    Ok(Response::new(()))
}

pub async fn delete(api: &Api, request: wire::DeleteStateRequest) -> Answer<()> {
    let store = store(api, &request.store_name)?;
    store
        .delete(removal(
            request.key,
            request.etag,
            request.options,
            request.metadata,
        ))
        .await?;
    Ok(Response::new(()))
}

pub async fn bulk_delete(api: &Api, request: wire::DeleteBulkStateRequest) -> Answer<()> {
    let store = store(api, &request.store_name)?;
    let removals = request
        .states
        .into_iter()
        .map(|i| removal(i.key, i.etag, i.options, i.metadata))
        .collect();
    store.bulk_delete(removals).await?;
    Ok(Response::new(()))
}

pub async fn transact(
    api: &Api,
    request: Request<wire::ExecuteStateTransactionRequest>,
) -> Answer<()> {
    let (headers, _, request) = request.into_parts();
    let trace = || Parent::of_headers(headers.as_ref(), Wire::Grpc);
    let store = store(api, &request.store_name)?;
    store.check_transactional()?;
    let mut operations = Vec::with_capacity(request.operations.len());
    for operation in request.operations {
        let item = operation.request.unwrap_or_default();
        operations.push(match operation.operation_type.as_str() {
            "upsert" => Operation::Upsert(set_in(&store, item)?),
            "delete" => {
                Operation::Delete(removal(item.key, item.etag, item.options, item.metadata))
            }
            other => return Err(error::unsupported_operation(other).into()),
        });
    }
    store
        .transact(operations, &request.metadata, &api.outbox, trace)
        .await?;
    Ok(Response::new(()))
}

pub async fn query(
    api: &Api,
    request: wire::QueryStateRequest,
) -> Answer<wire::QueryStateResponse> {
    let store = store(api, &request.store_name)?;
    let found = store
        .query(request.query.as_bytes(), request.metadata)
        .await?;
    let results = found.items.into_iter().map(|item| wire::QueryStateItem {
        key: item.key,
        data: item.value,
        etag: item.etag.unwrap_or_default(),
        error: item.error,
    });
    Ok(Response::new(wire::QueryStateResponse {
        results: results.collect(),
        token: found.token,
        metadata: found.metadata,
    }))
}

/// Over gRPC these two errors carry no metadata.
fn store(api: &Api, name: &str) -> Result<std::sync::Arc<super::Store>, Status> {
    api.store(name).map_err(|mut error| {
        if let Some(rich) = &mut error.rich {
            rich.metadata = None;
        }
        error.status()
    })
}

/// A save to `store`. One that encrypts keeps the bytes that were sent.
fn set_in(store: &super::Store, item: StateItem) -> Result<SetRequest, Status> {
    let sent = store.keys.as_ref().map(|_| item.value.clone());
    let mut request = set(item)?;
    if let Some(sent) = sent {
        request.value = Value::Binary(sent);
    }
    Ok(request)
}

pub(crate) fn set(item: StateItem) -> Result<SetRequest, Status> {
    let content_type = item.metadata.get("contentType").cloned();
    let value = if content_type.as_deref() == Some("application/json") {
        let text = item.value.as_ref();
        let value: serde_json::Value =
            super::decode::first(text, &Shape::Any).map_err(Status::unknown)?;
        Value::Json(Bytes::from(json::normal(&value)))
    } else {
        Value::Binary(item.value)
    };
    let (concurrency, consistency) = options(item.options);
    Ok(SetRequest {
        key: item.key,
        value,
        etag: item.etag.map(|etag| etag.value),
        metadata: item.metadata,
        concurrency,
        consistency,
        content_type,
    })
}

fn removal(
    key: String,
    etag: Option<Etag>,
    given: Option<StateOptions>,
    metadata: outrider_components::Pairs,
) -> DeleteRequest {
    let (concurrency, consistency) = options(given);
    DeleteRequest {
        key,
        etag: etag.map(|etag| etag.value),
        metadata,
        concurrency,
        consistency,
    }
}

fn options(given: Option<StateOptions>) -> (Concurrency, Consistency) {
    let Some(given) = given else {
        return Default::default();
    };
    let concurrency = match given.concurrency() {
        StateConcurrency::ConcurrencyUnspecified => Concurrency::Unspecified,
        StateConcurrency::ConcurrencyFirstWrite => Concurrency::FirstWrite,
        StateConcurrency::ConcurrencyLastWrite => Concurrency::LastWrite,
    };
    (concurrency, consistency(given.consistency))
}

fn consistency(number: i32) -> Consistency {
    match StateConsistency::try_from(number) {
        Ok(StateConsistency::ConsistencyEventual) => Consistency::Eventual,
        Ok(StateConsistency::ConsistencyStrong) => Consistency::Strong,
        _ => Consistency::Unspecified,
    }
}
