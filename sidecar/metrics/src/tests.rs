use std::time::Duration;

use ::http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use outrider_crds::configuration::{HttpMetrics, MetricLabel, MetricRule};

use super::component::{Fate, Operation};
use super::*;
use outrider_net::body::{self, Body};

fn with(metric: outrider_crds::configuration::Metrics) -> (Registry, Metrics) {
    let registry = Registry::new();
    let spec = Spec {
        metric: Some(metric),
        ..Spec::default()
    };
    let metrics = Metrics::new(&registry, &spec, "app", "");
    (registry, metrics)
}

fn defaults() -> outrider_crds::configuration::Metrics {
    Default::default()
}

/// The sidecar's own series that are no buckets.
fn page(registry: &Registry) -> Vec<String> {
    let text = registry.text();
    let lines = text.lines().filter(|line| line.starts_with("dapr_"));
    lines
        .filter(|line| !line.contains("_bucket{"))
        .map(str::to_owned)
        .collect()
}

fn has(registry: &Registry, lines: &[&str]) {
    let page = page(registry);
    for line in lines {
        assert!(page.iter().any(|l| l == line), "{line}\n{page:#?}");
    }
}

async fn request(metrics: &Metrics, method: Method, path: &str, answer: Response<Body>) {
    let headers = HeaderMap::from_iter([(::http::header::CONTENT_LENGTH, "3".parse().unwrap())]);
    let served = metrics.http_server().request(&method, path, &headers);
    let answer = served.answer(answer);
    answer.into_body().collect().await.unwrap();
}

fn streamed() -> Response<Body> {
    let frames = ["ab", "cde"].map(|text| {
        Ok::<_, body::BoxError>(http_body::Frame::data(bytes::Bytes::from_static(
            text.as_bytes(),
        )))
    });
    let stream = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    Response::new(body::stream(stream))
}

#[tokio::test]
async fn requests_with_their_paths() {
    let (registry, metrics) = with(defaults());
    assert!(page(&registry).is_empty());
    let foo = Method::from_bytes(b"FOO").unwrap();
    request(&metrics, Method::GET, "/v1.0/state/s/k", streamed()).await;
    request(&metrics, Method::GET, "/v1.0/state/s/l", streamed()).await;
    request(&metrics, foo, "/v1.0/x%2Fy", Response::new(body::empty())).await;
    has(
        &registry,
        &[
            r#"dapr_http_server_request_count{app_id="app",method="GET",path="/v1.0/state/s",status="200"} 2"#,
            r#"dapr_http_server_response_count{app_id="app",method="GET",path="/v1.0/state/s",status="200"} 2"#,
            r#"dapr_http_server_latency_count{app_id="app",method="GET",path="/v1.0/state/s",status="200"} 2"#,
            r#"dapr_http_server_request_count{app_id="app",method="UNKNOWN",path="/v1.0/x/y",status="200"} 1"#,
            r#"dapr_http_server_request_bytes_sum{app_id="app"} 9"#,
            r#"dapr_http_server_response_bytes_sum{app_id="app"} 10"#,
            r#"dapr_http_server_response_bytes_count{app_id="app"} 3"#,
        ],
    );
}

#[tokio::test]
async fn a_request_counts_when_its_answer_is_over() {
    let (registry, metrics) = with(defaults());
    let served = metrics
        .http_server()
        .request(&Method::GET, "/a", &HeaderMap::new());
    let answer = served.answer(streamed());
    let count =
        r#"dapr_http_server_request_count{app_id="app",method="GET",path="/a",status="200"} 1"#;
    assert!(!page(&registry).iter().any(|line| line == count));
    // The client has gone.
    drop(answer);
    has(&registry, &[count]);
}

#[tokio::test]
async fn little_is_told_where_little_is_asked_for() {
    let (registry, metrics) = with(outrider_crds::configuration::Metrics {
        http: Some(HttpMetrics {
            increased_cardinality: Some(false),
            exclude_verbs: Some(true),
            ..HttpMetrics::default()
        }),
        latency_distribution_buckets: Some(vec![5, 50]),
        ..defaults()
    });
    request(&metrics, Method::GET, "/v1.0/a", streamed()).await;
    request(&metrics, Method::POST, "/v1.0/b", streamed()).await;
    has(
        &registry,
        &[r#"dapr_http_server_request_count{app_id="app",method="",path="",status="200"} 1"#]
            .map(|line| line.replace("} 1", "} 2"))
            .each_ref()
            .map(String::as_str),
    );
    let text = registry.text();
    assert!(!text.contains("dapr_http_server_response_count"), "{text}");
    let buckets = text
        .lines()
        .filter(|l| l.starts_with("dapr_http_server_latency_bucket"));
    assert_eq!(buckets.count(), 3);
}

#[tokio::test]
async fn nothing_is_counted_where_nothing_is_asked_for() {
    let (registry, metrics) = with(outrider_crds::configuration::Metrics {
        enabled: Some(false),
        ..defaults()
    });
    request(&metrics, Method::GET, "/v1.0/a", streamed()).await;
    assert!(page(&registry).is_empty());
    // A rule that cannot be read turns everything off.
    let (registry, metrics) = with(outrider_crds::configuration::Metrics {
        rules: vec![MetricRule {
            name: "dapr_http_server_request_count".into(),
            labels: vec![MetricLabel {
                name: "path".into(),
                regex: [("x".to_owned(), "(".to_owned())].into(),
            }],
        }],
        ..defaults()
    });
    request(&metrics, Method::GET, "/v1.0/a", streamed()).await;
    assert!(page(&registry).is_empty());
}

#[tokio::test]
async fn calls_to_the_application() {
    let (registry, metrics) = with(defaults());
    let client = metrics.http_client();
    let called = client.call(&Method::POST, "orders/1");
    called.request(body::full("abc")).collect().await.unwrap();
    let (_, body) = streamed().into_parts();
    let body = called.answer(StatusCode::CREATED, body);
    body.collect().await.unwrap();
    client.call(&Method::GET, "dapr/config").failed();
    client.probed(StatusCode::OK, Duration::from_millis(2));
    has(
        &registry,
        &[
            r#"dapr_http_client_sent_bytes_sum{app_id="app",method="POST",path="/orders/1",status=""} 3"#,
            r#"dapr_http_client_received_bytes_sum{app_id="app"} 5"#,
            r#"dapr_http_client_completed_count{app_id="app",method="POST",path="/orders/1",status="201"} 1"#,
            r#"dapr_http_client_completed_count{app_id="app",method="GET",path="/dapr/config",status="500"} 1"#,
            r#"dapr_http_client_roundtrip_latency_count{app_id="app",method="POST",path="/orders/1",status="201"} 1"#,
            r#"dapr_http_healthprobes_completed_count{app_id="app",status="200"} 1"#,
            r#"dapr_http_healthprobes_roundtrip_latency_sum{app_id="app",status="200"} 2"#,
        ],
    );
}

#[tokio::test]
async fn errors_by_code() {
    let malformed = ErrorCode {
        code: "ERR_MALFORMED_REQUEST",
        category: "common",
    };
    let failed = || {
        let mut answer = Response::new(body::empty());
        answer.extensions_mut().insert(malformed);
        answer
    };
    let (registry, metrics) = with(defaults());
    request(&metrics, Method::GET, "/v1.0/a", failed()).await;
    assert!(!registry.text().contains("dapr_error_code_total"));
    let (registry, metrics) = with(outrider_crds::configuration::Metrics {
        record_error_codes: Some(true),
        ..defaults()
    });
    request(&metrics, Method::GET, "/v1.0/a", failed()).await;
    let mut status = tonic::Status::invalid_argument("no store");
    status.set_source(Arc::new(ErrorCode {
        code: "ERR_STATE_STORE_NOT_FOUND",
        category: "state",
    }));
    let served = metrics.grpc_server().call("/x/y");
    let answer = served.answer(status.into_http::<String>().map(|_| body::empty()));
    answer.into_body().collect().await.unwrap();
    has(
        &registry,
        &[
            r#"dapr_error_code_total{app_id="app",category="common",error_code="ERR_MALFORMED_REQUEST"} 1"#,
            r#"dapr_error_code_total{app_id="app",category="state",error_code="ERR_STATE_STORE_NOT_FOUND"} 1"#,
            r#"dapr_grpc_io_server_completed_rpcs{app_id="app",grpc_server_method="/x/y",grpc_server_status="InvalidArgument"} 1"#,
        ],
    );
}

#[tokio::test]
async fn operations_and_messages() {
    let (registry, metrics) = with(defaults());
    let state = metrics.state("store");
    let done: Result<(), ()> = state.time(Operation::BulkGet, async { Ok(()) }).await;
    assert!(done.is_ok());
    let failed: Result<(), ()> = state.time(Operation::Set, async { Err(()) }).await;
    assert!(failed.is_err());
    let topics = metrics.topics("bus");
    let took = Duration::from_millis(3);
    topics.published("t", true, took);
    topics.published_bulk("t", false, 2, took);
    topics.delivered("t", Fate::Unwanted, Duration::ZERO);
    topics.delivered_bulk(
        "t",
        &[Fate::Success, Fate::Success, Fate::Retry, Fate::Drop],
        took,
    );
    has(
        &registry,
        &[
            r#"dapr_component_state_count{app_id="app",component="store",namespace="",operation="bulk_get",success="true"} 1"#,
            r#"dapr_component_state_count{app_id="app",component="store",namespace="",operation="set",success="false"} 1"#,
            r#"dapr_component_pubsub_egress_count{app_id="app",component="bus",namespace="",success="true",topic="t"} 1"#,
            r#"dapr_component_pubsub_egress_latencies_sum{app_id="app",component="bus",namespace="",success="true",topic="t"} 3"#,
            r#"dapr_component_pubsub_egress_bulk_count{app_id="app",component="bus",namespace="",success="false",topic="t"} 1"#,
            r#"dapr_component_pubsub_egress_bulk_event_count{app_id="app",component="bus",namespace="",success="true",topic="t"} 2"#,
            r#"dapr_component_pubsub_ingress_count{app_id="app",component="bus",namespace="",process_status="drop",status="success",topic="t"} 1"#,
            r#"dapr_component_pubsub_ingress_bulk_count{app_id="app",component="bus",namespace="",process_status="RETRY",topic="t"} 1"#,
            r#"dapr_component_pubsub_ingress_bulk_event_count{app_id="app",component="bus",namespace="",process_status="SUCCESS",topic="t"} 2"#,
            r#"dapr_component_pubsub_ingress_bulk_event_count{app_id="app",component="bus",namespace="",process_status="DROP",topic="t"} 1"#,
        ],
    );
    // A delivery that never began took no time.
    assert!(!registry.text().contains("pubsub_ingress_latencies"));
}

#[test]
fn calls_between_applications() {
    let (registry, metrics) = with(defaults());
    let calls = metrics.calls();
    calls.sent("b", false).ended(201);
    calls.sent("b", true).ended(14);
    calls.received(Some("c")).ended(200);
    calls.received(None).ended(13);
    calls.component_loaded("state.redis");
    calls.component_failed("state.redis", "init", "store");
    has(
        &registry,
        &[
            r#"dapr_runtime_service_invocation_req_sent_total{app_id="app",dst_app_id="b",type="unary"} 1"#,
            r#"dapr_runtime_service_invocation_req_sent_total{app_id="app",dst_app_id="b",type="streaming"} 1"#,
            r#"dapr_runtime_service_invocation_res_recv_total{app_id="app",src_app_id="b",status="201",type="unary"} 1"#,
            r#"dapr_runtime_service_invocation_res_recv_total{app_id="app",src_app_id="b",status="14",type="streaming"} 1"#,
            r#"dapr_runtime_service_invocation_res_recv_latency_ms_count{app_id="app",src_app_id="b",status="201"} 1"#,
            r#"dapr_runtime_service_invocation_req_recv_total{app_id="app",src_app_id="c"} 1"#,
            r#"dapr_runtime_service_invocation_req_recv_total{app_id="app",src_app_id="unknown"} 1"#,
            r#"dapr_runtime_service_invocation_res_sent_total{app_id="app",dst_app_id="unknown",status="13"} 1"#,
            r#"dapr_runtime_component_init_total{app_id="app",component="state.redis"} 1"#,
            r#"dapr_runtime_component_init_fail_total{app_id="app",component="state.redis",componentName="store",reason="init"} 1"#,
            r#"dapr_runtime_component_loaded{app_id="app"} 1"#,
        ],
    );
}
