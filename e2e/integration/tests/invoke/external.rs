use anyhow::{Context, Result};
use axum::Router;
use axum::routing::{any, get, post};
use http::{Method, Request, StatusCode, Version};
use http_body_util::Full;
use outrider_harness::{Authority, Daprd, HttpApp, wait};
use outrider_proto::common::v1::http_extension::Verb;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest};
use outrider_proto::runtime::v1::InvokeServiceRequest;

fn routes() -> Router {
    Router::new()
        .route(
            "/echo",
            any(async |body: String| ([("x-from", "afar")], body)),
        )
        .route(
            "/base/moved",
            get(async || (StatusCode::FOUND, [("location", "../echo")])),
        )
        .route(
            "/again",
            post(async || (StatusCode::PERMANENT_REDIRECT, [("location", "/echo")])),
        )
        .route(
            "/round",
            get(async || (StatusCode::FOUND, [("location", "/round")])),
        )
        .fallback(async || StatusCode::NOT_FOUND)
}

/// An endpoint called `afar`; `more` is further members of its spec.
fn endpoint(base: &str, more: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {{name: afar}}\nspec:\n  baseUrl: {base}\n{more}"
    )
}

/// PEM as a member of an endpoint's TLS.
fn document(name: &str, pem: &str) -> String {
    let lines: Vec<String> = pem
        .lines()
        .map(|line| format!("        {line}\n"))
        .collect();
    format!("    {name}:\n      value: |\n{}", lines.concat())
}

#[tokio::test]
async fn a_host_is_called_by_its_url() -> Result<()> {
    let host = HttpApp::start(routes()).await?;
    let app = HttpApp::start(routes()).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .env("APP_API_TOKEN", "for-the-app-only")
        .start()
        .await?;
    let http = daprd.http();
    let base = format!("http://127.0.0.1:{}", host.port());
    let escaped = base.replace(':', "%3A").replace('/', "%2F");
    for target in [&base, &escaped] {
        let request = Request::post(format!("/v1.0/invoke/{target}/method/echo?a=%20"))
            .header("content-type", "text/plain")
            .header("x-kept", "1")
            .header("dapr-caller-app-id", "forged")
            .body(Full::from("hello"))?;
        let answer = http.send(request).await?;
        assert_eq!((answer.status, &*answer.text()), (200, "hello"), "{target}");
        assert_eq!(answer.header("x-from"), Some("afar"));
    }
    let seen = host.last().context("was not called")?;
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/echo?a=%20"));
    assert_eq!(seen.header("x-kept"), Some("1"));
    assert_eq!(seen.header("content-length"), Some("5"));
    for name in [
        "dapr-api-token",
        "dapr-caller-app-id",
        "dapr-app-id",
        "x-forwarded-for",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }

    // The whole path belongs to a host that a header names.
    let request = Request::get("/base/moved")
        .header("dapr-app-id", &base)
        .body(Full::default())?;
    let moved = http.send(request).await?;
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("../echo"))
    );
    assert_eq!(host.last().context("was not called")?.target, "/base/moved");

    let refused = http.get("/v1.0/invoke/http://127.0.0.1:1/method/x").await?;
    let (code, message) = refused.error()?;
    assert_eq!((refused.status, &*code), (500, "ERR_DIRECT_INVOKE"));
    assert_eq!(
        message,
        "failed to invoke, id: http://127.0.0.1:1, err: Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
    assert!(app.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn an_http_endpoint_is_called_by_its_name() -> Result<()> {
    let host = HttpApp::start(routes()).await?;
    let other = HttpApp::start(Router::new().fallback(async || "other")).await?;
    let elsewhere = format!("http://127.0.0.1:{}/taken", other.port());
    let far = HttpApp::start(
        Router::new()
            .fallback(async move || (StatusCode::TEMPORARY_REDIRECT, [("location", elsewhere)])),
    )
    .await?;
    let headers = "  headers:\n  - {name: x-key, secretKeyRef: {name: THE_KEY, key: THE_KEY}}\n  - {name: x-kept, value: '{appID}'}\nauth: {secretStore: env}\n";
    let base = format!("http://127.0.0.1:{}", host.port());
    let daprd = Daprd::builder()
        .component("env", "secretstores.local.env")
        .env("THE_KEY", "opens")
        .resource(&endpoint(&base, headers))
        .resource(
            &endpoint(&format!("http://127.0.0.1:{}/", far.port()), headers)
                .replace("name: afar", "name: farther"),
        )
        .resource(
            &format!("{}scopes: [other]\n", endpoint(&base, ""))
                .replace("name: afar", "name: hidden"),
        )
        .start()
        .await?;
    let http = daprd.http();
    let request = Request::post("/v1.0/invoke/afar/method/echo")
        .header("x-kept", "of the client")
        .body(Full::from("hello"))?;
    let answer = http.send(request).await?;
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    let seen = host.last().context("was not called")?;
    assert_eq!(seen.header("x-key"), Some("opens"));
    assert_eq!(seen.header("x-kept"), Some("{appID}"));

    let moved = http.get("/v1.0/invoke/afar/method/base/moved").await?;
    assert_eq!((moved.status, moved.header("x-from")), (200, Some("afar")));
    let again = http
        .request(Method::POST, "/v1.0/invoke/afar/method/again", "kept")
        .await?;
    assert_eq!(
        (again.status, again.header("location")),
        (308, Some("/echo"))
    );
    let round = http.get("/v1.0/invoke/afar/method/round").await?;
    let (_, message) = round.error()?;
    assert!(message.ends_with("stopped after 10 redirects"), "{message}");

    // Another host than the one that was meant does not learn the key.
    let taken = http.get("/v1.0/invoke/farther/method/x").await?;
    assert_eq!(taken.text(), "other");
    assert_eq!(
        far.last().context("was not called")?.header("x-key"),
        Some("opens")
    );
    assert_eq!(
        other.last().context("was not called")?.header("x-key"),
        None
    );

    let hidden = http.get("/v1.0/invoke/hidden/method/x").await?;
    assert_eq!(hidden.status, 500);
    let metadata = http.get("/v1.0/metadata").await?.json()?;
    let names = serde_json::json!([{"name": "afar"}, {"name": "farther"}]);
    assert_eq!(metadata["httpEndpoints"], names);
    Ok(())
}

#[tokio::test]
async fn an_http_endpoint_has_tls_settings() -> Result<()> {
    let authority = Authority::new()?;
    let host = HttpApp::over_tls(routes(), authority.server(false)?).await?;
    let strict = HttpApp::over_tls(routes(), authority.server(true)?).await?;
    let base = format!("https://localhost:{}", host.port());
    let strict_base = format!("https://localhost:{}", strict.port());
    let ca = document("rootCA", &authority.pem());
    let (certificate, key) = authority.issue("client")?;
    let known = format!(
        "{ca}{}{}",
        document("certificate", &certificate),
        document("privateKey", &key)
    );
    let named = |base: &str, name: &str, tls: &str| {
        endpoint(
            base,
            &format!("  clientTLS:\n    renegotiation: Never\n{tls}"),
        )
        .replace("name: afar", &format!("name: {name}"))
    };
    let daprd = Daprd::builder()
        .resource(&named(&base, "trusted", &ca))
        .resource(&named(&strict_base, "known", &known))
        .resource(&named(&strict_base, "unknown", &ca))
        .resource(&named(&base, "broken", &document("rootCA", "no PEM")))
        .resource(&named(&base, "wrong", &ca).replace("Never", "Always"))
        .start()
        .await?;
    let http = daprd.http();
    for (name, seen) in [("trusted", &host), ("known", &strict)] {
        let path = format!("/v1.0/invoke/{name}/method/echo");
        let answer = http.request(Method::POST, &path, "hello").await?;
        assert_eq!((answer.status, &*answer.text()), (200, "hello"), "{name}");
        let seen = seen.last().context("was not called")?;
        assert_eq!(seen.version, Version::HTTP_2);
    }
    let untrusted = format!("/v1.0/invoke/{base}/method/echo");
    for (path, words) in [
        (
            &*untrusted,
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        (
            "/v1.0/invoke/unknown/method/echo",
            "remote error: tls: certificate required",
        ),
        (
            "/v1.0/invoke/broken/method/echo",
            "failed to add root cert to cert pool",
        ),
        (
            "/v1.0/invoke/wrong/method/echo",
            "invalid renegotiation value Always for http endpoint wrong",
        ),
    ] {
        let refused = http.get(path).await?;
        let (code, message) = refused.error()?;
        assert_eq!((refused.status, &*code), (500, "ERR_DIRECT_INVOKE"));
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(host.seen().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_host_is_called_through_the_grpc_api() -> Result<()> {
    let host = HttpApp::start(routes()).await?;
    let base = format!("http://127.0.0.1:{}", host.port());
    let daprd = Daprd::builder()
        .resource(&endpoint(&base, ""))
        .start()
        .await?;
    let mut grpc = daprd.grpc().await?;
    for (id, method, status) in [("afar", "echo", "200"), (&*base, "echo", "200")] {
        let message = InvokeRequest {
            method: method.to_owned(),
            data: Some(outrider_proto::Any {
                type_url: String::new(),
                value: "hello".into(),
            }),
            content_type: "text/plain".to_owned(),
            http_extension: Some(HttpExtension {
                verb: Verb::Post.into(),
                querystring: "a=1".to_owned(),
            }),
        };
        let request = InvokeServiceRequest {
            id: id.to_owned(),
            message: Some(message),
        };
        let answer = grpc.invoke_service(request).await?;
        let header = answer.metadata().get("dapr-http-status");
        assert_eq!(header.context("no status")?, status);
        let data = answer.into_inner().data.context("no data")?;
        assert_eq!(data.value, b"hello");
        assert_eq!(host.last().context("was not called")?.target, "/echo?a=1");
    }
    Ok(())
}

#[tokio::test]
async fn endpoints_change_while_the_sidecar_runs() -> Result<()> {
    let host = HttpApp::start(routes()).await?;
    let daprd = Daprd::builder()
        .resource(&endpoint("http://127.0.0.1:1", ""))
        .start()
        .await?;
    let base = format!("http://127.0.0.1:{}", host.port());
    std::fs::write(daprd.resources().join("0.yaml"), endpoint(&base, ""))?;
    daprd
        .line(&format!(
            "Received HTTPEndpoint UPDATED event: afar ({base}) - triggering SIGHUP reload"
        ))
        .await?;
    let path = "/v1.0/invoke/afar/method/echo";
    wait::until("the new address is used", || async {
        let answer = daprd.http().request(Method::POST, path, "x").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    std::fs::remove_file(daprd.resources().join("0.yaml"))?;
    daprd
        .line(&format!(
            "Received HTTPEndpoint DELETED event: afar ({base}) - triggering SIGHUP reload"
        ))
        .await?;
    Ok(())
}
