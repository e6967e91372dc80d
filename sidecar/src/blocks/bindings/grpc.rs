//! Invoking bindings over gRPC.

use http::HeaderMap;
use outrider_components::Pairs;
use outrider_components::bindings::{self, Answer};
use outrider_proto::runtime::v1 as wire;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{Api, error, ops};
use crate::blocks::http::add_metadata;
use outrider_trace::{self as trace, baggage::BAGGAGE};

pub async fn invoke(
    api: &Api,
    request: Request<wire::InvokeBindingRequest>,
) -> Result<Response<wire::InvokeBindingResponse>, Status> {
    let (headers, _, request) = request.into_parts();
    let mut metadata = request.metadata;
    complete(&mut metadata, headers.as_ref())?;
    let name = request.name;
    let request = bindings::Request {
        operation: request.operation,
        data: request.data,
        metadata,
    };
    match api.invoke(&name, &request).await {
        Ok(answer) => {
            let Answer { data, metadata, .. } = answer.unwrap_or_default();
            let headers = answer_headers(&metadata);
            let mut response = Response::new(wire::InvokeBindingResponse { data, metadata });
            *response.metadata_mut() = headers;
            Ok(response)
        }
        Err(failure) => {
            let mut status = error::invoke(&name, &failure).status();
            if let Some(came_back) = failure.answer {
                *status.metadata_mut() = answer_headers(&came_back.metadata);
            }
            Err(status)
        }
    }
}

fn answer_headers(metadata: &Pairs) -> MetadataMap {
    let mut headers = HeaderMap::new();
    add_metadata(&mut headers, metadata);
    MetadataMap::from_headers(headers)
}

/// Adds what came with the call to its metadata, which counts first. Binary
/// values stay out: components take metadata for text.
fn complete(metadata: &mut Pairs, headers: &HeaderMap) -> Result<(), Status> {
    if let Some(baggage) = ops::baggage(headers)? {
        metadata.insert(BAGGAGE.to_owned(), baggage);
    }
    for name in headers.keys() {
        let lower = name.as_str();
        if lower.ends_with("-bin") {
            continue;
        }
        let key = match lower.starts_with("grpc-") {
            true => format!("dapr-{lower}"),
            false => lower.to_owned(),
        };
        let counts_first = matches!(lower, trace::TRACEPARENT | trace::TRACESTATE);
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok())
            && (counts_first || !metadata.contains_key(&key))
        {
            metadata.insert(key, value.to_owned());
        }
    }
    let trace = trace::Parent::of_headers(headers, trace::Wire::Grpc);
    let parent = match trace.parent.is_empty() {
        true => trace::NOTHING.to_owned(),
        false => trace.parent,
    };
    let known = metadata.entry(trace::TRACEPARENT.to_owned());
    known.or_insert(parent);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_a_call_is_metadata_that_counts_last() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("path", "/theirs"),
            ("other", "1"),
            ("grpc-timeout", "1S"),
            ("secret-bin", "AAE"),
            ("baggage", "a=1"),
            ("baggage", "b=2"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let mut metadata = Pairs::from([("path".to_owned(), "/ours".to_owned())]);
        complete(&mut metadata, &headers).unwrap();
        let all = [
            ("path", "/ours"),
            ("other", "1"),
            ("dapr-grpc-timeout", "1S"),
            ("baggage", "a=1,b=2"),
            ("traceparent", trace::NOTHING),
        ];
        let all = all.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(metadata, Pairs::from(all));
    }

    #[test]
    fn the_trace_of_the_call_counts_before_one_in_the_metadata() {
        let mut headers = HeaderMap::new();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", parent.parse().unwrap());
        let mut metadata = Pairs::from([("traceparent".to_owned(), "x".to_owned())]);
        complete(&mut metadata, &headers).unwrap();
        assert_eq!(metadata["traceparent"], parent);
    }

    #[test]
    fn wrong_baggage_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("baggage", "x".parse().unwrap());
        let status = complete(&mut Pairs::new(), &headers).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}
