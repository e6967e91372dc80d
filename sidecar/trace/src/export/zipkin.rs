//! Zipkin's JSON, version 2. <https://zipkin.io/zipkin-api/#/default/post_spans>

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use serde::Serialize;

use super::client::{Client, Endpoint};
use super::{Failed, Resource, TRACER, Taken};
use crate::context::hex;
use crate::span::{Finished, Kind};

/// What says whom a client called, the most telling first.
const REMOTE: [&str; 3] = ["net.peer.name", "server.address", "db.name"];

pub struct Zipkin {
    client: Client,
    path: Uri,
}

impl Zipkin {
    /// `path` with the query.
    pub fn new(endpoint: Endpoint, path: Uri) -> Self {
        Self {
            client: Client::new(endpoint, false),
            path,
        }
    }

    pub(super) async fn send(
        &mut self,
        batch: &[Arc<Finished>],
        resource: &Resource,
    ) -> Result<Taken, Failed> {
        let spans: Vec<_> = batch.iter().map(|span| model(span, resource)).collect();
        let body = serde_json::to_vec(&spans).map_err(|e| Failed::final_because(e.to_string()))?;
        let host = HeaderValue::try_from(self.client.endpoint.authority())
            .map_err(|e| Failed::final_because(e.to_string()))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::USER_AGENT, HeaderValue::from_static("outrider"));
        let answer = self.client.send(request).await;
        let answer = answer.map_err(Failed::passing_because)?;
        if answer.status.is_success() {
            return Ok(Taken::default());
        }
        let cause = format!("the collector answered {}", answer.status);
        Err(Failed::final_because(cause))
    }
}

#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Model {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    kind: &'static str,
    name: String,
    /// Microseconds.
    timestamp: u64,
    duration: u64,
    local_endpoint: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<Service>,
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Service {
    service_name: String,
}

fn model(span: &Finished, resource: &Resource) -> Model {
    let mut tags: BTreeMap<String, String> = span
        .attributes
        .iter()
        .map(|(name, value)| (name.clone().into_owned(), value.clone()))
        .chain(resource.iter().cloned())
        .collect();
    tags.insert("otel.scope.name".to_owned(), TRACER.to_owned());
    match &span.error {
        None => {
            tags.remove("error");
        }
        Some(cause) => {
            tags.insert("otel.status_code".to_owned(), "ERROR".to_owned());
            tags.insert("error".to_owned(), cause.clone());
        }
    }
    let service = resource.iter().find(|(name, _)| name == "service.name");
    let attribute = |wanted: &&str| {
        let mut all = span.attributes.iter();
        let (_, value) = all.find(|(name, _)| name == *wanted)?;
        Some(value.clone())
    };
    let remote = match span.kind {
        Kind::Server => None,
        Kind::Client | Kind::Producer => REMOTE.iter().find_map(attribute),
    };
    Model {
        trace_id: hex(&span.context.trace_id),
        id: hex(&span.context.span_id),
        parent_id: span.parent.map(|id| hex(&id)),
        kind: match span.kind {
            Kind::Server => "SERVER",
            Kind::Client => "CLIENT",
            Kind::Producer => "PRODUCER",
        },
        name: span.name.to_lowercase(),
        timestamp: microseconds(span.start),
        // A span that took less counts as this: zero would mean unknown.
        duration: u64::try_from(span.took.as_micros())
            .unwrap_or(u64::MAX)
            .max(1),
        local_endpoint: Service {
            service_name: service.map(|(_, name)| name.clone()).unwrap_or_default(),
        },
        remote_endpoint: remote.map(|service_name| Service { service_name }),
        tags,
    }
}

fn microseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::export::tests::span;

    #[test]
    fn a_span_in_zipkins_form() {
        let mut span = span("CallLocal/b/x");
        span.parent = Some([3; 8]);
        span.start = SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000);
        span.took = Duration::from_nanos(10);
        span.error = Some("Code(404): Not Found".to_owned());
        span.attributes = vec![("net.peer.name".into(), "b".to_owned())];
        let resource = vec![("service.name".to_owned(), "app".to_owned())];
        let json = serde_json::to_value(model(&span, &resource)).unwrap();
        let expected = serde_json::json!({
            "traceId": "01010101010101010101010101010101",
            "id": "0202020202020202",
            "parentId": "0303030303030303",
            "kind": "CLIENT",
            "name": "calllocal/b/x",
            "timestamp": 1_500_000,
            "duration": 1,
            "localEndpoint": {"serviceName": "app"},
            "remoteEndpoint": {"serviceName": "b"},
            "tags": {
                "error": "Code(404): Not Found",
                "net.peer.name": "b",
                "otel.scope.name": "dapr-diagnostics",
                "otel.status_code": "ERROR",
                "service.name": "app",
            },
        });
        assert_eq!(json, expected);
    }
}
