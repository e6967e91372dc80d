//! Distributed tracing, with a collector that speaks Zipkin's and
//! OpenTelemetry's HTTP.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use outrider_harness::{Builder, Daprd, HttpApp, Pair, Sentry, wait};
use serde_json::{Value, json};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ZEROS: &str = "00-00000000000000000000000000000000-0000000000000000-00";

async fn collector() -> Result<HttpApp> {
    HttpApp::start(Router::new().fallback(async || "")).await
}

fn zipkin(collector: &HttpApp) -> String {
    let address = format!("http://127.0.0.1:{}/api/v2/spans", collector.port());
    format!("tracing: {{samplingRate: '1', zipkin: {{endpointAddress: '{address}'}}}}")
}

/// Spans wait for no others.
fn at_once(builder: Builder) -> Builder {
    builder.env("OTEL_BSP_SCHEDULE_DELAY", "10")
}

/// The spans that a collector got so far.
fn spans(collector: &HttpApp) -> Vec<Value> {
    let bodies = collector.seen().into_iter();
    let lists = bodies.filter_map(|seen| serde_json::from_slice::<Vec<Value>>(&seen.body).ok());
    lists.flatten().collect()
}

/// The span of a kind with a name, once it is there.
async fn span(collector: &HttpApp, kind: &str, name: &str) -> Result<Value> {
    let what = format!("the {kind} span {name} arrives");
    wait::until(&what, || async {
        let mut all = spans(collector).into_iter();
        all.find(|span| span["kind"] == kind && span["name"] == name)
    })
    .await
}

fn header(span: &Value) -> String {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    format!("00-{}-{}-01", text("traceId"), text("id"))
}

#[tokio::test]
async fn a_call_is_one_trace_from_the_client_to_the_application() -> Result<()> {
    let collector = collector().await?;
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let config = zipkin(&collector);
    let pair = Pair::both(
        |caller| at_once(caller).config(&config),
        |called| at_once(called).app(&app).config(&config),
    )
    .await?;
    let client = pair
        .caller
        .http()
        .with("traceparent", PARENT)
        .with("tracestate", "vendor=1")
        .with("baggage", "k=v")
        .with("dapr-mine", "shown");
    let answer = client.get("/v1.0/invoke/called/method/a/b?q=1").await?;
    assert_eq!(answer.status, 200);
    let outer = span(&collector, "CLIENT", "calllocal/called/a/b").await?;
    let inner = span(&collector, "SERVER", "calllocal/called/a/b").await?;
    assert_eq!(
        (&outer["traceId"], &inner["traceId"]),
        (&json!(TRACE), &json!(TRACE))
    );
    assert_eq!(outer["parentId"], "00f067aa0ba902b7");
    assert_eq!(inner["parentId"], outer["id"]);
    assert_eq!(answer.header("traceparent"), Some(header(&outer).as_str()));
    assert_eq!(answer.header("tracestate"), Some("vendor=1"));
    assert_eq!(answer.header("baggage"), Some("k=v"));
    let seen = app.last().context("was not called")?;
    assert_eq!(seen.header("traceparent"), Some(header(&inner).as_str()));
    assert_eq!(seen.header("tracestate"), Some("vendor=1"));
    assert_eq!(seen.header("baggage"), Some("k=v"));
    let tags: BTreeMap<String, String> = serde_json::from_value(outer["tags"].clone())?;
    for (name, value) in [
        ("dapr.api", "GET /v1.0/invoke/called/method/a/b"),
        ("dapr.protocol", "http"),
        ("dapr.status_code", "200"),
        ("http.request.method", "GET"),
        ("url.full", "/v1.0/invoke/called/method/a/b"),
        ("rpc.service", "ServiceInvocation"),
        ("net.peer.name", "called"),
        ("dapr-mine", "shown"),
    ] {
        assert_eq!(tags.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(inner["tags"]["dapr.invoke_method"], "a/b");
    assert_eq!(inner["localEndpoint"]["serviceName"], "called");
    Ok(())
}

#[tokio::test]
async fn tokens_are_in_no_span_and_errors_are() -> Result<()> {
    let collector = collector().await?;
    let daprd = at_once(Daprd::builder())
        .config(&zipkin(&collector))
        .env("DAPR_API_TOKEN", "secret")
        .start()
        .await?;
    let http = daprd.http();
    let stranger = http.clone().with("baggage", "bad");
    let refused = stranger.get("/v1.0/state/none/refused").await?;
    assert_eq!(refused.status, 401, "the token is judged before all else");
    assert_eq!(refused.header("traceparent"), None);
    let answer = http
        .with("dapr-api-token", "secret")
        .get("/v1.0/state/none/k")
        .await?;
    assert_eq!(answer.status, 500);
    let cause = "Code(500): Internal Server Error";
    let failed = wait::until("the failed span arrives", || async {
        let mut all = spans(&collector).into_iter();
        all.find(|span| span["tags"]["error"] == cause)
    })
    .await?;
    assert_eq!(failed["name"], "/v1.0/state/none/k");
    let tags = &failed["tags"];
    for (name, value) in [
        ("db.system", "state"),
        ("db.name", "none"),
        ("db.statement", "GET /v1.0/state/none/k"),
        ("db.connection_string", "state"),
    ] {
        assert_eq!(tags[name], value, "{name}");
    }
    let all: Vec<String> = spans(&collector).iter().map(Value::to_string).collect();
    assert!(!all.concat().contains("secret"), "{all:?}");
    Ok(())
}

#[tokio::test]
async fn credentials_in_urls_are_in_no_span() -> Result<()> {
    let collector = collector().await?;
    let builder = at_once(Daprd::builder()).config(&zipkin(&collector));
    let daprd = builder.start().await?;
    let http = daprd.http();
    for target in [
        "http://user:passw0rd@127.0.0.1:1",
        "http%3A%2F%2Fuser%3Apassw0rd%40127.0.0.1:1",
    ] {
        http.get(&format!("/v1.0/invoke/{target}/method/x?api_key=q"))
            .await?;
    }
    wait::until("both spans arrive", || async {
        (spans(&collector).len() >= 2).then_some(())
    })
    .await?;
    let all: Vec<String> = spans(&collector).iter().map(Value::to_string).collect();
    for secret in ["passw0rd", "api_key"] {
        assert!(!all.concat().contains(secret), "{all:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_denied_caller_makes_no_span() -> Result<()> {
    let sentry = Sentry::start().await?;
    let collector = collector().await?;
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let access = "accessControl: {defaultAction: deny, trustDomain: public, policies: [{appId: caller, defaultAction: deny, trustDomain: public, namespace: default, operations: [{name: /open, httpVerb: ['*'], action: allow}]}]}";
    let pair = Pair::mtls(&sentry, |called| {
        at_once(called)
            .app(&app)
            .config(access)
            .config(&zipkin(&collector))
    })
    .await?;
    let http = pair.caller.http();
    let refused = http.get("/v1.0/invoke/called/method/closed").await?;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let answer = http.get("/v1.0/invoke/called/method/open").await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    span(&collector, "SERVER", "calllocal/called/open").await?;
    assert_eq!(spans(&collector).len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_delivery_belongs_to_the_trace_of_its_publication() -> Result<()> {
    let collector = collector().await?;
    let subscriptions = json!([{"pubsubname": "bus", "topic": "orders", "route": "/orders"}]);
    let router = Router::new()
        .route("/dapr/subscribe", get(async move || Json(subscriptions)))
        .route("/orders", post(async || "{}"));
    let app = HttpApp::start(router).await?;
    let daprd = at_once(Daprd::builder())
        .app(&app)
        .config(&zipkin(&collector))
        .component("bus", "pubsub.in-memory")
        .start()
        .await?;
    let http = daprd.http();
    let published = http
        .with("traceparent", PARENT)
        .post("/v1.0/publish/bus/orders", &json!(1))
        .await?;
    assert_eq!(published.status, 204);
    let publication = span(&collector, "CLIENT", "/v1.0/publish/bus/orders").await?;
    let delivery = span(&collector, "CLIENT", "pubsub/orders").await?;
    assert_eq!(publication["traceId"], TRACE);
    assert_eq!(publication["tags"]["messaging.destination.name"], "orders");
    assert_eq!(delivery["traceId"], TRACE);
    assert_eq!(delivery["parentId"], publication["id"]);
    assert_eq!(delivery["tags"]["messaging.system"], "pubsub");
    let seen = app.last().context("no delivery")?;
    assert_eq!(seen.header("traceparent"), Some(header(&delivery).as_str()));
    let event: Value = serde_json::from_slice(&seen.body)?;
    assert_eq!(event["traceparent"], header(&publication));
    Ok(())
}

#[tokio::test]
async fn what_is_not_sampled_has_ids_and_goes_nowhere() -> Result<()> {
    let collector = collector().await?;
    let config = zipkin(&collector).replace("'1'", "'-1'");
    let daprd = at_once(Daprd::builder()).config(&config).start().await?;
    let first = daprd.http().get("/v1.0/metadata").await?;
    let first = first.header("traceparent").context("no header")?.to_owned();
    assert!(first != ZEROS && first.ends_with("-00"), "{first}");
    // A client that records has its calls recorded.
    let client = daprd.http().with("traceparent", PARENT);
    client.get("/v1.0/metadata").await?;
    span(&collector, "CLIENT", "/v1.0/metadata").await?;
    assert_eq!(spans(&collector).len(), 1);
    Ok(())
}

#[tokio::test]
async fn without_a_collector_contexts_are_passed_on_and_rate_zero_turns_them_off() -> Result<()> {
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    for (config, parent) in [("{}", Some(ZEROS)), ("tracing: {samplingRate: '0'}", None)] {
        let daprd = Daprd::builder().app(&app).config(config).start().await?;
        let path = "/v1.0/invoke/app/method/x";
        let answer = daprd.http().get(path).await?;
        assert_eq!(answer.header("traceparent"), parent);
        let seen = app.last().context("was not called")?;
        assert_eq!(seen.header("traceparent"), parent);
        let answer = daprd.http().with("traceparent", PARENT).get(path).await?;
        assert_eq!(answer.header("traceparent"), parent.and(Some(PARENT)));
        let seen = app.last().context("was not called")?;
        assert_eq!(seen.header("traceparent"), Some(PARENT));
        let answer = daprd.http().with("baggage", "bad").get(path).await?;
        assert_eq!(answer.status, if parent.is_some() { 400 } else { 200 });
    }
    Ok(())
}

#[tokio::test]
async fn a_collector_of_the_environment_gets_the_spans_that_are_left_at_the_end() -> Result<()> {
    let collector = collector().await?;
    let address = format!("http://127.0.0.1:{}", collector.port());
    let daprd = Daprd::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &address)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_INSECURE", "true")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")
        .env("OTEL_SERVICE_NAME", "shop")
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .start()
        .await?;
    let answer = daprd.http().get("/v1.0/metadata").await?;
    let context = answer.header("traceparent").context("no header")?;
    assert!(context.ends_with("-01"), "{context}");
    assert_eq!(daprd.stop().await?, Some(0));
    let seen = collector.last().context("nothing was sent")?;
    assert_eq!(seen.target, "/v1/traces");
    assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(seen.header("x-key"), Some("a b"));
    let text = String::from_utf8_lossy(&seen.body).into_owned();
    assert!(
        text.contains("service.name") && text.contains("shop"),
        "{text}"
    );
    assert!(text.contains("/v1.0/metadata"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_delays_no_request_and_its_spans_are_counted() -> Result<()> {
    let daprd = Daprd::builder()
        .config("tracing: {samplingRate: '1', otel: {endpointAddress: '127.0.0.1:1', protocol: grpc, isSecure: false, timeout: 100ms}}")
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        .start()
        .await?;
    for _ in 0..64 {
        assert_eq!(daprd.http().get("/v1.0/metadata").await?.status, 200);
    }
    let line = daprd
        .line("spans were dropped on their way to otlp")
        .await?;
    assert!(line.contains("level=warning"), "{line}");
    let metrics = outrider_harness::http::Client::new(daprd.metrics_port());
    wait::until("dropped spans are counted", || async {
        let page = metrics.get("/metrics").await.ok()?.text();
        let dropped = r#"dapr_runtime_trace_spans_dropped_total{app_id="app",exporter="otlp"} "#;
        let (_, rest) = page.split_once(dropped)?;
        rest.lines().next()?.parse::<u64>().ok().filter(|n| *n > 0)
    })
    .await?;
    assert_eq!(daprd.stop().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_cannot_be_traced_with_ends_the_start() -> Result<()> {
    let daprd = Daprd::builder()
        .config("tracing: {otel: {endpointAddress: 'a:1', protocol: udp}}")
        .spawn()?;
    daprd
        .line("failed to setup tracing: invalid protocol udp provided for Otel endpoint")
        .await?;
    assert!(!daprd.end().await?.success());
    Ok(())
}

#[tokio::test]
async fn spans_as_log_lines() -> Result<()> {
    let daprd = Daprd::builder()
        .config("tracing: {samplingRate: '1', stdout: true}")
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .start()
        .await?;
    let grpc = daprd
        .grpc()
        .await?
        .get_metadata(outrider_proto::runtime::v1::GetMetadataRequest {})
        .await?;
    assert!(grpc.metadata().get_bin("grpc-trace-bin").is_some());
    let line = daprd
        .line("[/dapr.proto.runtime.v1.Dapr/GetMetadata] Trace: ")
        .await?;
    assert!(line.contains("scope=dapr.runtime.trace"), "{line}");
    assert!(line.contains(" Annotations: []"), "{line}");
    Ok(())
}
