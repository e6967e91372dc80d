//! State over HTTP. <https://docs.dapr.io/reference/api/state_api/>

use std::borrow::Cow;
use std::collections::HashMap;

use http::{HeaderValue, Response, StatusCode, header};
use outrider_components::state::{DeleteRequest, GetRequest};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Api, decode, error};
use crate::blocks::error::{Error, Result, body_read, malformed};
use crate::blocks::http::{self as api, Request, no_content};
use crate::blocks::json;
use outrider_net::body::{Body, ReadError};
use outrider_trace::{Parent, Wire};

pub async fn get(api: &Api, request: Request, store: &str, key: &str) -> Response<Body> {
    answer(async {
        let store = api.store(store)?;
        let get = GetRequest {
            key: key.to_owned(),
            consistency: request
                .parameter("consistency")
                .unwrap_or_default()
                .parse()
                .unwrap_or_default(),
            metadata: request.metadata(),
        };
        let Some(item) = store.get(get).await.map_err(wrapped)? else {
            return Ok(no_content());
        };
        let mut answer = api::json(StatusCode::OK, item.value);
        if let Some(etag) = item.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
            answer.headers_mut().insert(header::ETAG, etag);
        }
        api::add_metadata(answer.headers_mut(), &item.metadata);
        Ok(answer)
    })
    .await
}

pub async fn save(api: &Api, mut request: Request, store: &str) -> Response<Body> {
    answer(async {
        let store = api.store(store)?;
        let bytes = request
            .bytes()
            .await
            .map_err(|e| malformed(e.to_string()).of_body(&e))?;
        let metadata = request.metadata();
        let items = decode::save(&bytes)?;
        let sets = items.into_iter().map(|item| {
            item.into_set(&metadata)
                .map_err(|cause| error::save(store.instance.name(), &cause))
        });
        store
            .save(sets.collect::<Result<_>>()?)
            .await
            .map_err(wrapped)?;
        Ok(no_content())
    })
    .await
}

pub async fn delete(api: &Api, request: Request, store: &str, key: &str) -> Response<Body> {
    answer(async {
        let store = api.store(store)?;
        let option = |name: &str| request.parameter(name).unwrap_or_default();
        let wrong = |cause: outrider_components::Error| error::delete(key, &cause);
        let delete = DeleteRequest {
            key: key.to_owned(),
            etag: request
                .header("if-match")
                .filter(|etag| !etag.is_empty())
                .map(str::to_owned),
            concurrency: option("concurrency").parse().map_err(wrong)?,
            consistency: option("consistency").parse().map_err(wrong)?,
            metadata: request.metadata(),
        };
        store.delete(delete).await.map_err(wrapped)?;
        Ok(no_content())
    })
    .await
}

/// One row of a bulk get. Keys that are empty are left out.
#[derive(Serialize)]
struct Row<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    metadata: &'a HashMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub async fn bulk_get(api: &Api, mut request: Request, store: &str) -> Response<Body> {
    answer(async {
        let store = api.store(store)?;
        let bytes = request.bytes().await.map_err(read_failed)?;
        let mut asked: decode::BulkGet = decode::first(&bytes, &decode::BULK_GET)
            .map_err(|e| malformed(format!("failed deserializing HTTP body: {e}")))?;
        asked.metadata.extend(request.metadata());
        let requests = asked
            .keys
            .into_iter()
            .map(|key| GetRequest {
                key,
                metadata: asked.metadata.clone(),
                ..GetRequest::default()
            })
            .collect();
        let items = store
            .bulk_get(requests, asked.parallelism)
            .await
            .map_err(wrapped)?;
        let nothing = HashMap::new();
        let rows: Vec<Row<'_>> = items
            .iter()
            .map(|item| {
                let mut row = Row {
                    key: &item.key,
                    data: None,
                    etag: None,
                    metadata: &nothing,
                    error: None,
                };
                match &item.result {
                    Err(cause) => row.error = Some(cause.to_string()),
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        row.etag = found.etag.as_deref().filter(|etag| !etag.is_empty());
                        row.metadata = &found.metadata;
                        match raw(&found.value) {
                            Ok(data) => row.data = data.map(Cow::Borrowed),
                            // The text of a string, which was encrypted
                            // without its quotes.
                            Err(_) if store.keys.is_some() => {
                                row.data = quoted(&found.value).map(Cow::Owned)
                            }
                            Err(reason) => row.error = Some(reason.to_owned()),
                        }
                    }
                }
                row
            })
            .collect();
        Ok(api::json(StatusCode::OK, json::to_line(&rows)))
    })
    .await
}

pub async fn transact(api: &Api, mut request: Request, store: &str) -> Response<Body> {
    answer(async {
        let store = api.store(store)?;
        store.check_transactional()?;
        let bytes = request.bytes().await.map_err(read_failed)?;
        let asked: decode::Transaction = decode::first(&bytes, &decode::TRANSACTION)
            .map_err(|e| malformed(format!("failed deserializing HTTP body: {e}")))?;
        let metadata = request.metadata();
        let operations = asked
            .operations
            .into_iter()
            .map(|o| o.into_operation(&metadata))
            .collect::<Result<_>>()?;
        let mut all = asked.metadata;
        all.extend(metadata);
        let trace = || Parent::of_headers(&request.headers, Wire::Http);
        store
            .transact(operations, &all, &api.outbox, trace)
            .await
            .map_err(wrapped)?;
        Ok(no_content())
    })
    .await
}

/// One item that was found. What is empty is left out.
#[derive(Serialize)]
struct Found<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Page<'a> {
    results: Vec<Found<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'a str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    metadata: &'a HashMap<String, String>,
}

pub async fn query(api: &Api, mut request: Request, store: &str) -> Response<Body> {
    answer(async {
        let store = api.store(store)?;
        let bytes = request.bytes().await.map_err(body_read)?;
        let found = store.query(&bytes, request.metadata()).await?;
        if found.items.is_empty() {
            return Ok(no_content());
        }
        let results = found.items.iter().map(|item| {
            let data = raw(&item.value);
            Found {
                key: &item.key,
                data: data.unwrap_or_default(),
                etag: item.etag.as_deref().filter(|etag| !etag.is_empty()),
                error: match data {
                    Err(reason) if item.error.is_empty() => reason,
                    _ => &item.error,
                },
            }
        });
        let page = Page {
            results: results.collect(),
            token: &found.token,
            metadata: &found.metadata,
        };
        Ok(api::json(StatusCode::OK, json::to_line(&page)))
    })
    .await
}

/// The JSON of a value in a list, if there is one. A value that is not JSON
/// fails only its own row.
fn raw(value: &[u8]) -> std::result::Result<Option<&RawValue>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(value)
        .map(Some)
        .map_err(|_| "the stored value is not JSON: read it with a single get")
}

/// Text as a JSON string.
fn quoted(text: &[u8]) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(&String::from_utf8_lossy(text)).ok()
}

async fn answer(work: impl Future<Output = Result<Response<Body>>>) -> Response<Body> {
    work.await.unwrap_or_else(Into::into)
}

fn read_failed(error: ReadError) -> Error {
    malformed(format!("failed deserializing HTTP body: {error}")).of_body(&error)
}

/// Over HTTP the error of an illegal key has the prefix of a nested error.
fn wrapped(mut error: Error) -> Error {
    let illegal = error
        .rich
        .as_ref()
        .is_some_and(|rich| rich.reason == "DAPR_STATE_ILLEGAL_KEY");
    if illegal {
        let nested = error.nested();
        if let Some(violation) = error.rich.as_mut().and_then(|rich| rich.violation.as_mut()) {
            violation.description = nested.clone();
        }
        error.message = nested;
    }
    error
}
