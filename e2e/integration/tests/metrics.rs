use std::collections::BTreeMap;

use anyhow::{Context, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, GrpcApp, HttpApp, Sentry, wait};
use outrider_proto::common::v1::http_extension::Verb;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use outrider_proto::runtime::v1::{GetStateRequest, InvokeServiceRequest};
use serde_json::json;
use tonic::Request;

/// A scrape: values by name with labels, except buckets.
async fn scrape(daprd: &Daprd) -> Result<BTreeMap<String, f64>> {
    let page = Client::new(daprd.metrics_port()).get("/metrics").await?;
    assert_eq!(page.status, 200);
    let text = page.text();
    let lines = text.lines().filter(|line| line.starts_with("dapr_"));
    lines
        .filter(|line| !line.contains("_bucket{"))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("no value")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// Waits until every line is there with its value.
async fn settles(daprd: &Daprd, wanted: &[(&str, f64)]) -> Result<()> {
    let reached = wait::until("the metrics are there", || async {
        let page = scrape(daprd).await.ok()?;
        let all = wanted
            .iter()
            .all(|(name, value)| page.get(*name) == Some(value));
        all.then_some(())
    })
    .await;
    if let Err(error) = reached {
        let page = scrape(daprd).await?;
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(name, value)| page.get(*name) != Some(value))
            .collect();
        return Err(error.context(format!("missing: {missing:#?}\nof {page:#?}")));
    }
    Ok(())
}

#[tokio::test]
async fn apis_and_components_are_counted() -> Result<()> {
    let daprd = Daprd::builder()
        .component("store", "state.in-memory")
        .component("env", "secretstores.local.env")
        .component("bus", "pubsub.in-memory")
        .config("metrics: {recordErrorCodes: true}")
        .start()
        .await?;
    let http = daprd.http();
    http.post("/v1.0/state/store", &json!([{"key": "a", "value": 1}]))
        .await?;
    for key in ["a", "b"] {
        http.get(&format!("/v1.0/state/store/{key}")).await?;
    }
    http.get("/v1.0/state/nowhere/a").await?;
    http.get("/v1.0/secrets/env/PATH").await?;
    http.post("/v1.0/publish/bus/orders", &json!({})).await?;
    http.post("/v1.0/publish/nowhere/orders", &json!({}))
        .await?;
    http.get("/v1.0/healthz").await?;
    let mut grpc = daprd.grpc().await?;
    let get = |store: &str| GetStateRequest {
        store_name: store.to_owned(),
        key: "a".to_owned(),
        ..GetStateRequest::default()
    };
    grpc.get_state(get("store")).await?;
    grpc.get_state(get("nowhere")).await.unwrap_err();
    settles(
        &daprd,
        &[
            (r#"dapr_http_server_request_count{app_id="app",method="GET",path="/v1.0/state/store",status="200"}"#, 1.0),
            (r#"dapr_http_server_request_count{app_id="app",method="GET",path="/v1.0/state/store",status="204"}"#, 1.0),
            (r#"dapr_http_server_request_count{app_id="app",method="GET",path="/v1.0/secrets/env",status="200"}"#, 1.0),
            (r#"dapr_http_server_response_count{app_id="app",method="POST",path="/v1.0/publish/bus/orders",status="204"}"#, 1.0),
            (r#"dapr_http_server_latency_count{app_id="app",method="POST",path="/v1.0/state/store",status="204"}"#, 1.0),
            (r#"dapr_component_state_count{app_id="app",component="store",namespace="",operation="get",success="true"}"#, 3.0),
            (r#"dapr_component_state_count{app_id="app",component="store",namespace="",operation="set",success="true"}"#, 1.0),
            (r#"dapr_component_secret_count{app_id="app",component="env",namespace="",operation="get",success="true"}"#, 1.0),
            (r#"dapr_component_pubsub_egress_count{app_id="app",component="bus",namespace="",success="true",topic="orders"}"#, 1.0),
            (r#"dapr_error_code_total{app_id="app",category="state",error_code="ERR_STATE_STORE_NOT_FOUND"}"#, 2.0),
            (r#"dapr_error_code_total{app_id="app",category="pubsub",error_code="ERR_PUBSUB_NOT_FOUND"}"#, 1.0),
            (r#"dapr_grpc_io_server_completed_rpcs{app_id="app",grpc_server_method="/dapr.proto.runtime.v1.Dapr/GetState",grpc_server_status="OK"}"#, 1.0),
            (r#"dapr_grpc_io_server_completed_rpcs{app_id="app",grpc_server_method="/dapr.proto.runtime.v1.Dapr/GetState",grpc_server_status="InvalidArgument"}"#, 1.0),
            (r#"dapr_grpc_io_server_server_latency_count{app_id="app",grpc_server_method="/dapr.proto.runtime.v1.Dapr/GetState",grpc_server_status="OK"}"#, 1.0),
            (r#"dapr_grpc_io_server_received_bytes_per_rpc_sum{app_id="app",grpc_server_method="/dapr.proto.runtime.v1.Dapr/GetState"}"#, 22.0),
            (r#"dapr_runtime_component_init_total{app_id="app",component="state.in-memory"}"#, 1.0),
        ],
    )
    .await
}

#[tokio::test]
async fn the_configuration_decides_labels_and_buckets() -> Result<()> {
    let low = Daprd::builder()
        .component("store", "state.in-memory")
        .config("metric: {http: {increasedCardinality: false, excludeVerbs: true, pathMatching: ['/v1.0/state/store/{key}']}, latencyDistributionBuckets: [5, 50]}")
        .start()
        .await?;
    let http = low.http();
    http.get("/v1.0/state/store/a").await?;
    http.get("/v1.0/state/store/b").await?;
    http.get("/v1.0/metadata").await?;
    settles(
        &low,
        &[
            (r#"dapr_http_server_request_count{app_id="app",method="",path="/v1.0/state/store/{key}",status="204"}"#, 2.0),
            (r#"dapr_http_server_request_count{app_id="app",method="",path="",status="200"}"#, 1.0),
        ],
    )
    .await?;
    let page = Client::new(low.metrics_port()).get("/").await?.text();
    assert!(!page.contains("dapr_http_server_response_count"));
    assert!(page.contains(
        r#"dapr_http_server_latency_bucket{app_id="app",method="",path="",status="200",le="50"} 1"#
    ));
    assert!(!page.contains(r#"le="10""#) && !page.contains(r#"le="1""#));
    low.line("Using custom latency distribution buckets: [5 50]")
        .await?;

    let ruled = Daprd::builder()
        .config("metric: {rules: [{name: dapr_http_server_request_count, labels: [{name: path, regex: {'/v1.0/all': '/v1.0/.+'}}]}]}")
        .start()
        .await?;
    ruled.http().get("/v1.0/metadata").await?;
    settles(
        &ruled,
        &[
            (r#"dapr_http_server_request_count{app_id="app",method="GET",path="/v1.0/all",status="200"}"#, 1.0),
            (r#"dapr_http_server_response_count{app_id="app",method="GET",path="/v1.0/metadata",status="200"}"#, 1.0),
        ],
    )
    .await?;
    for line in [
        "metric spec: {",
        "Using default latency distribution buckets: [1 2 3 4 5 6 8 10 13 16 20 25 30 40 50 65 80 100 130 160 200 250 300 400 500 650 800 1000 2000 5000 10000 20000 50000 100000]",
    ] {
        ruled.line(line).await?;
    }

    let off = Daprd::builder()
        .config("metric: {enabled: false}")
        .start()
        .await?;
    off.http().get("/v1.0/metadata").await?;
    assert!(scrape(&off).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn calls_between_applications_are_counted_on_both_sides() -> Result<()> {
    let sentry = Sentry::start().await?;
    let folder = tempfile::tempdir()?;
    let router = Router::new()
        .route("/orders/{id}", post(async || (StatusCode::CREATED, "made")))
        .route("/health", get(async || "well"));
    let app = HttpApp::start(router).await?;
    let caller = Daprd::builder()
        .app_id("caller")
        .names(folder.path())
        .sentry(&sentry)?
        .start()
        .await?;
    let called = Daprd::builder()
        .app_id("called")
        .names(folder.path())
        .sentry(&sentry)?
        .app(&app)
        .flag("--enable-app-health-check")
        .flag("--app-health-check-path=/health")
        .flag("--app-health-probe-interval=1")
        .config("accessControl: {defaultAction: deny, trustDomain: public, policies: [{appId: caller, defaultAction: allow, trustDomain: public, namespace: default}]}")
        .start()
        .await?;
    let path = "/v1.0/invoke/called/method/orders/7";
    let made = wait::until("the application is healthy", || async {
        let answer = caller.http().post(path, &json!({"n": 1})).await.ok()?;
        (answer.status == 201).then_some(answer)
    })
    .await?;
    assert_eq!(made.text(), "made");
    settles(
        &caller,
        &[
            (r#"dapr_http_server_request_count{app_id="caller",method="POST",path="/v1.0/invoke/called/method/orders/7",status="201"}"#, 1.0),
            (r#"dapr_runtime_service_invocation_res_recv_total{app_id="caller",src_app_id="called",status="201",type="unary"}"#, 1.0),
            (r#"dapr_runtime_service_invocation_res_recv_latency_ms_count{app_id="caller",src_app_id="called",status="201"}"#, 1.0),
            (r#"dapr_runtime_mtls_init_total{app_id="caller"}"#, 1.0),
        ],
    )
    .await?;
    settles(
        &called,
        &[
            (r#"dapr_http_client_completed_count{app_id="called",method="POST",path="/orders/7",status="201"}"#, 1.0),
            (r#"dapr_http_client_roundtrip_latency_count{app_id="called",method="POST",path="/orders/7",status="201"}"#, 1.0),
            (r#"dapr_http_client_sent_bytes_sum{app_id="called",method="POST",path="/orders/7",status=""}"#, 7.0),
            (r#"dapr_http_client_completed_count{app_id="called",method="GET",path="/dapr/config",status="404"}"#, 1.0),
            (r#"dapr_runtime_service_invocation_res_sent_total{app_id="called",dst_app_id="caller",status="201"}"#, 1.0),
        ],
    )
    .await?;
    let page = scrape(&called).await?;
    for name in [
        r#"dapr_http_healthprobes_completed_count{app_id="called",status="200"}"#,
        r#"dapr_http_healthprobes_roundtrip_latency_count{app_id="called",status="200"}"#,
        r#"dapr_runtime_acl_app_policy_action_allowed_total{app_id="caller",namespace="default",trustDomain="public"}"#,
        r#"dapr_runtime_service_invocation_req_recv_total{app_id="called",src_app_id="caller"}"#,
    ] {
        assert!(page.contains_key(name), "{name}\n{page:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn grpc_calls_are_counted_on_both_sides() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let app = GrpcApp::start(|request: InvokeRequest| {
        Ok(InvokeResponse {
            data: request.data,
            content_type: String::new(),
        })
    })
    .await?;
    let caller = Daprd::builder()
        .app_id("caller")
        .names(folder.path())
        .start()
        .await?;
    let called = Daprd::builder()
        .app_id("called")
        .names(folder.path())
        .grpc_app(&app)
        .start()
        .await?;
    let message = InvokeRequest {
        method: "echo".to_owned(),
        http_extension: Some(HttpExtension {
            verb: Verb::Post.into(),
            querystring: String::new(),
        }),
        ..InvokeRequest::default()
    };
    let invocation = InvokeServiceRequest {
        id: "called".to_owned(),
        message: Some(message.clone()),
    };
    caller.grpc().await?.invoke_service(invocation).await?;
    let mut request = Request::new(message);
    let target = tonic::metadata::MetadataValue::from_static("called");
    request.metadata_mut().insert("dapr-app-id", target);
    AppCallbackClient::new(caller.channel().await?)
        .on_invoke(request)
        .await?;
    settles(
        &caller,
        &[
            (r#"dapr_grpc_io_server_completed_rpcs{app_id="caller",grpc_server_method="/dapr.proto.runtime.v1.Dapr/InvokeService",grpc_server_status="OK"}"#, 1.0),
            (r#"dapr_grpc_io_server_completed_rpcs{app_id="caller",grpc_server_method="/dapr.proto.runtime.v1.AppCallback/OnInvoke",grpc_server_status="OK"}"#, 1.0),
            (r#"dapr_runtime_service_invocation_req_sent_total{app_id="caller",dst_app_id="called",type="unary"}"#, 2.0),
            (r#"dapr_runtime_service_invocation_res_recv_total{app_id="caller",src_app_id="called",status="0",type="unary"}"#, 2.0),
        ],
    )
    .await?;
    settles(
        &called,
        &[
            // Invoked and proxied.
            (r#"dapr_grpc_io_client_completed_rpcs{app_id="called",grpc_client_method="/dapr.proto.runtime.v1.AppCallback/OnInvoke",grpc_client_status="OK"}"#, 2.0),
            (r#"dapr_grpc_io_client_roundtrip_latency_count{app_id="called",grpc_client_method="/dapr.proto.runtime.v1.AppCallback/OnInvoke",grpc_client_status="OK"}"#, 2.0),
            (r#"dapr_grpc_io_client_received_bytes_per_rpc_count{app_id="called",grpc_client_method="/dapr.proto.runtime.v1.AppCallback/OnInvoke"}"#, 1.0),
        ],
    )
    .await
}

#[tokio::test]
async fn messages_are_counted_by_their_outcome() -> Result<()> {
    let subscriptions = json!([
        {"pubsubname": "bus", "topic": "good", "route": "/good"},
        {"pubsubname": "bus", "topic": "gone", "route": "/gone"},
        {"pubsubname": "bus", "topic": "unwanted", "route": "/unwanted"},
        {"pubsubname": "bus", "topic": "many", "route": "/many", "bulkSubscribe": {"enabled": true, "maxMessagesCount": 2, "maxAwaitDurationMs": 5000}},
    ]);
    let router = Router::new()
        .route("/dapr/subscribe", get(async move || Json(subscriptions)))
        .route("/good", post(async || "{}"))
        .route("/unwanted", post(async || Json(json!({"status": "DROP"}))))
        .route("/many", post(many));
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("bus", "pubsub.in-memory")
        .start()
        .await?;
    let http = daprd.http();
    for topic in ["good", "gone", "unwanted"] {
        let answer = http
            .post(&format!("/v1.0/publish/bus/{topic}"), &json!({}))
            .await?;
        assert_eq!(answer.status, 204);
    }
    let entries = json!([
        {"entryId": "1", "event": "a", "contentType": "text/plain"},
        {"entryId": "2", "event": "b", "contentType": "text/plain"},
    ]);
    let answer = http
        .post("/v1.0-alpha1/publish/bulk/bus/many", &entries)
        .await?;
    assert_eq!(answer.status, 204, "{}", answer.text());
    settles(
        &daprd,
        &[
            (r#"dapr_component_pubsub_ingress_count{app_id="app",component="bus",namespace="",process_status="success",status="success",topic="good"}"#, 1.0),
            (r#"dapr_component_pubsub_ingress_latencies_count{app_id="app",component="bus",namespace="",process_status="success",status="success",topic="good"}"#, 1.0),
            (r#"dapr_component_pubsub_ingress_count{app_id="app",component="bus",namespace="",process_status="drop",status="drop",topic="gone"}"#, 1.0),
            (r#"dapr_component_pubsub_ingress_count{app_id="app",component="bus",namespace="",process_status="drop",status="success",topic="unwanted"}"#, 1.0),
            (r#"dapr_component_pubsub_egress_bulk_count{app_id="app",component="bus",namespace="",success="true",topic="many"}"#, 1.0),
            (r#"dapr_component_pubsub_egress_bulk_event_count{app_id="app",component="bus",namespace="",success="true",topic="many"}"#, 2.0),
            (r#"dapr_component_pubsub_ingress_bulk_event_count{app_id="app",component="bus",namespace="",process_status="SUCCESS",topic="many"}"#, 2.0),
        ],
    )
    .await?;
    let batches = r#"dapr_component_pubsub_ingress_bulk_count{app_id="app",component="bus",namespace="",process_status="SUCCESS",topic="many"}"#;
    assert!(scrape(&daprd).await?.contains_key(batches));
    Ok(())
}

/// Takes every message of a batch.
async fn many(Json(batch): Json<serde_json::Value>) -> Json<serde_json::Value> {
    let entries = batch["entries"].as_array().cloned().unwrap_or_default();
    let statuses: Vec<_> = entries
        .iter()
        .map(|entry| json!({"entryId": entry["entryId"], "status": "SUCCESS"}))
        .collect();
    Json(json!({ "statuses": statuses }))
}
