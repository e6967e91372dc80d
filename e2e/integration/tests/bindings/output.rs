use anyhow::Result;
use axum::Router;
use http::StatusCode;
use outrider_harness::{Builder, Daprd, HttpApp};
use outrider_proto::runtime::v1::InvokeBindingRequest;
use serde_json::json;
use tonic::Code;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A server that a binding called `web` leads to.
async fn web() -> Result<(HttpApp, Builder)> {
    let router = Router::new().fallback(async |uri: http::Uri| match uri.path() {
        "/api/missing" => (StatusCode::NOT_FOUND, "no"),
        "/api/empty" => (StatusCode::NO_CONTENT, ""),
        _ => (StatusCode::OK, "yes"),
    });
    let server = HttpApp::start(router).await?;
    let component = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: web}}\nspec:\n  type: bindings.http\n  version: v1\n  metadata:\n  - {{name: url, value: 'http://127.0.0.1:{}/api'}}\n",
        server.port()
    );
    let builder = Daprd::builder().resource(&component);
    Ok((server, builder))
}

#[tokio::test]
async fn an_invocation_reaches_the_component_over_both_protocols() -> Result<()> {
    let (server, builder) = web().await?;
    let daprd = builder.start().await?;
    let http = daprd.http().with("traceparent", TRACE);
    let body = json!({
        "operation": "put",
        "data": {"b": 1.0, "a": "x"},
        "metadata": {"path": "/things/1", "X-Color": "red"},
    });
    for answer in [
        http.post("/v1.0/bindings/web", &body).await?,
        http.put("/v1.0/bindings/web", &body).await?,
    ] {
        assert_eq!((answer.status, answer.text().as_str()), (200, "yes"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("metadata.statuscode"), Some("200"));
        assert_eq!(answer.header("metadata.status"), Some("200 OK"));
        let seen = server.last().expect("was called");
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("PUT", "/api/things/1")
        );
        assert_eq!(seen.header("x-color"), Some("red"));
        assert_eq!(seen.header("traceparent"), Some(TRACE));
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&seen.body)?,
            body["data"]
        );
    }
    let mut grpc = daprd.grpc().await?;
    let mut request = tonic::Request::new(InvokeBindingRequest {
        name: "web".into(),
        data: "bytes \u{1}".into(),
        metadata: [("path".to_owned(), "/things/2".to_owned())].into(),
        operation: "create".into(),
    });
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", TRACE.parse()?);
    metadata.insert("baggage", "a=1".parse()?);
    let answer = grpc.invoke_binding(request).await?;
    assert_eq!(
        answer
            .metadata()
            .get("metadata.statuscode")
            .expect("is there"),
        "200"
    );
    let answer = answer.into_inner();
    assert_eq!(answer.data, "yes");
    assert_eq!(answer.metadata["statusCode"], "200");
    let seen = server.last().expect("was called");
    assert_eq!(seen.target.as_str(), "/api/things/2");
    assert_eq!(seen.body, "bytes \u{1}");
    assert_eq!(seen.header("traceparent"), Some(TRACE));
    assert_eq!(seen.header("baggage"), Some("a=1"));
    Ok(())
}

#[tokio::test]
async fn what_a_binding_says_besides_comes_with_errors_too() -> Result<()> {
    let (_server, builder) = web().await?;
    let daprd = builder.start().await?;
    let http = daprd.http();
    let missing = json!({"operation": "get", "metadata": {"path": "missing"}});
    let answer = http.post("/v1.0/bindings/web", &missing).await?;
    let expected = (
        "ERR_INVOKE_OUTPUT_BINDING".to_owned(),
        "error invoking output binding web: received status code 404".to_owned(),
    );
    assert_eq!((answer.status, answer.error()?), (500, expected.clone()));
    assert_eq!(answer.header("metadata.statuscode"), Some("404"));
    let empty = json!({"operation": "get", "metadata": {"path": "empty"}});
    let answer = http.post("/v1.0/bindings/web", &empty).await?;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));

    let mut grpc = daprd.grpc().await?;
    let request = InvokeBindingRequest {
        name: "web".into(),
        operation: "get".into(),
        metadata: [("path".to_owned(), "missing".to_owned())].into(),
        ..Default::default()
    };
    let status = grpc.invoke_binding(request).await.expect_err("404");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, expected.1.as_str())
    );
    assert_eq!(
        status
            .metadata()
            .get("metadata.statuscode")
            .expect("is there"),
        "404"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_refused() -> Result<()> {
    let (server, builder) = web().await?;
    let input_only = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: input}\nspec:\n  type: bindings.http\n  version: v1\n  metadata:\n  - {name: url, value: 'http://127.0.0.1:1'}\n  - {name: direction, value: input}\n";
    let daprd = builder.resource(input_only).start().await?;
    let http = daprd.http();
    for (name, body, cause) in [
        ("web", json!({}), "operation field is missing from request"),
        (
            "none",
            json!({"operation": "get"}),
            "couldn't find output binding none",
        ),
        (
            "input",
            json!({"operation": "get"}),
            "couldn't find output binding input",
        ),
        (
            "web",
            json!({"operation": "list"}),
            "binding web does not support operation list. supported operations:create get head post put patch delete options trace",
        ),
        (
            "web",
            json!({"operation": "get", "metadata": {"path": "%2e%2e/admin"}}),
            "the path \"%2e%2e/admin\" is refused: it leads out of the URL of the binding",
        ),
    ] {
        let answer = http.post(&format!("/v1.0/bindings/{name}"), &body).await?;
        let message = format!("error invoking output binding {name}: {cause}");
        let expected = ("ERR_INVOKE_OUTPUT_BINDING".to_owned(), message);
        assert_eq!((answer.status, answer.error()?), (500, expected));
    }
    assert!(server.last().is_none());
    let with_baggage = daprd.http().with("baggage", "nonsense");
    let answer = with_baggage
        .post("/v1.0/bindings/web", &json!({"operation": "get"}))
        .await?;
    assert_eq!(answer.status, 400);
    let text = answer.text();
    assert!(text.starts_with("invalid baggage header: "), "{text}");
    let answer = http
        .request(http::Method::POST, "/v1.0/bindings/web", "{")
        .await?;
    assert_eq!(
        (answer.status, answer.error()?.0),
        (400, "ERR_MALFORMED_REQUEST".to_owned())
    );

    let metadata = http.get("/v1.0/metadata").await?.json()?;
    let components = metadata["components"].as_array().expect("a list");
    let of = |name: &str| {
        components
            .iter()
            .find(|c| c["name"] == name)
            .expect("is there")
    };
    assert_eq!(of("web")["capabilities"], json!(["OUTPUT_BINDING"]));
    assert!(of("input").get("capabilities").is_none());
    Ok(())
}

#[tokio::test]
async fn invocations_are_tried_again_and_counted() -> Result<()> {
    let (server, builder) = web().await?;
    let policy = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: {retries: {twice: {duration: 10ms, maxRetries: 2}}}\n  targets: {components: {web: {outbound: {retry: twice}}}}\n";
    let daprd = builder.resource(policy).start().await?;
    let missing = json!({"operation": "get", "metadata": {"path": "missing"}});
    let answer = daprd.http().post("/v1.0/bindings/web", &missing).await?;
    assert_eq!(answer.status, 500);
    assert_eq!(server.seen().len(), 3);
    let metrics = outrider_harness::http::Client::new(daprd.metrics_port());
    let metrics = metrics.get("/").await?.text();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("dapr_component_output_binding_count{"));
    let line = line.expect("is counted");
    for part in [
        "component=\"web\"",
        "operation=\"get\"",
        "success=\"false\"",
        "} 1",
    ] {
        assert!(line.contains(part), "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_type_that_is_not_registered_ends_the_start() -> Result<()> {
    let daprd = Daprd::builder()
        .component("b", "bindings.nothing")
        .spawn()?;
    daprd
        .line("process component b error: couldn't find binding b (bindings.nothing/v1)")
        .await?;
    assert_eq!(daprd.end().await?.code(), Some(1));
    Ok(())
}
