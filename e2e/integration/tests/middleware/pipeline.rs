//! What holds for every middleware: which requests pass it, in which order,
//! and what happens when components change.

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::any;
use http::{Method, Request};
use http_body_util::Full;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, HttpApp, Pair, invocation, wait};
use outrider_proto::runtime::v1::InvokeServiceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{middleware, pipeline};

fn echo() -> Router {
    Router::new().fallback(any(async |body: String| body))
}

const ECHO: &str = "/v1.0/invoke/called/method/echo";

/// The body that a post of `hello` brings back.
async fn posted(client: &Client, path: &str) -> Result<(u16, String)> {
    let answer = client.request(Method::POST, path, "hello").await?;
    Ok((answer.status, answer.text()))
}

fn is(answer: (u16, String), status: u16, text: &str) {
    assert_eq!((answer.0, &*answer.1), (status, text));
}

#[tokio::test]
async fn requests_pass_the_first_handler_first_and_health_passes_none() -> Result<()> {
    let app = HttpApp::start(echo()).await?;
    let to =
        |path: &str, other: &str| format!("{{name: routes, value: '{{\"{path}\": \"{other}\"}}'}}");
    let pair = Pair::both(
        |caller| {
            caller
                .config(&pipeline(
                    "httpPipeline",
                    &[
                        ("one", "routeralias"),
                        ("two", "routeralias"),
                        ("check", "routerchecker"),
                    ],
                ))
                .resource(&middleware("one", "routeralias", &to("/hello", "/again")))
                .resource(&middleware("two", "routeralias", &to("/again", ECHO)))
                .resource(&middleware(
                    "check",
                    "routerchecker",
                    "{name: rule, value: '^[a-z0-9./]+$'}",
                ))
        },
        |called| called.app(&app),
    )
    .await?;
    let http = pair.caller.http();
    is(posted(&http, "/hello").await?, 200, "hello");
    assert_eq!(app.last().context("was not called")?.target, "/echo");
    is(posted(&http, "/hello?x=1").await?, 400, "invalid router");
    // Probes get no answer of a middleware.
    assert_eq!(http.get("/v1.0/healthz?x=1").await?.status, 204);
    assert_eq!(
        pair.caller.public().get("/v1.0/metadata?x=1").await?.status,
        200
    );
    assert_eq!(http.get("/v1.0/metadata?x=1").await?.status, 400);
    // gRPC is not covered.
    let message = invocation("ECHO");
    let request = InvokeServiceRequest {
        id: "called".to_owned(),
        message: Some(message),
    };
    pair.caller.grpc().await?.invoke_service(request).await?;
    Ok(())
}

#[tokio::test]
async fn the_token_is_asked_for_first() -> Result<()> {
    let daprd = Daprd::builder()
        .env("DAPR_API_TOKEN", "secret")
        .config(&pipeline("httpPipeline", &[("check", "routerchecker")]))
        .resource(&middleware(
            "check",
            "routerchecker",
            "{name: rule, value: nothing}",
        ))
        .start()
        .await?;
    let http = daprd.http();
    assert_eq!(http.get("/v1.0/metadata").await?.status, 401);
    let with_token = http.with("dapr-api-token", "secret");
    assert_eq!(with_token.get("/v1.0/metadata").await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn calls_of_the_application_and_of_endpoints_pass_the_other_pipeline() -> Result<()> {
    let app = HttpApp::start(echo()).await?;
    let afar = HttpApp::start(echo()).await?;
    let list = pipeline(
        "appHttpPipeline",
        &[("upper", "uppercase"), ("alias", "routeralias")],
    );
    let routes = "{name: routes, value: '{\"/echo\": \"/loud\", \"/dapr/config\": \"/config\"}'}";
    let pair = Pair::both(
        |caller| {
            caller
                .config(&list)
                .resource(&middleware("upper", "uppercase", "{name: direction, value: both}"))
                .resource(&middleware("alias", "routeralias", routes))
                .resource(&format!("apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {{name: afar}}\nspec:\n  baseUrl: http://127.0.0.1:{}/base\n", afar.port()))
        },
        |called| {
            called
                .config(&list)
                .app(&app)
                .resource(&middleware("upper", "uppercase", ""))
                .resource(&middleware("alias", "routeralias", routes))
        },
    )
    .await?;
    let http = pair.caller.http();
    is(posted(&http, ECHO).await?, 200, "HELLO");
    let seen = app.last().context("was not called")?;
    assert_eq!((&*seen.target, &*seen.body), ("/loud", &b"HELLO"[..]));
    wait::until("the application is asked by the other name", || async {
        app.seen()
            .iter()
            .any(|seen| seen.target == "/config")
            .then_some(())
    })
    .await?;
    is(
        posted(&http, "/v1.0/invoke/afar/method/x").await?,
        200,
        "HELLO",
    );
    let seen = afar.last().context("was not called")?;
    assert_eq!((&*seen.target, &*seen.body), ("/base/x", &b"HELLO"[..]));
    // What cannot be reached says so as it does without middleware.
    let gone = format!(
        "/v1.0/invoke/http://127.0.0.1:{}/method/x",
        outrider_harness::port::free()
    );
    let (status, text) = posted(&http, &gone).await?;
    assert!(
        status == 500 && text.contains("connection refused"),
        "{status} {text}"
    );
    Ok(())
}

#[tokio::test]
async fn bodies_stream_through_middleware() -> Result<()> {
    let app = HttpApp::streaming(Router::new().fallback(any(async |body: axum::body::Body| body)))
        .await?;
    let list = [("upper", "uppercase"), ("limit", "ratelimit")];
    let pair = Pair::both(
        |caller| {
            caller
                .config(&pipeline("httpPipeline", &list))
                .resource(&middleware(
                    "upper",
                    "uppercase",
                    "{name: direction, value: both}",
                ))
                .resource(&middleware("limit", "ratelimit", ""))
        },
        |called| {
            called
                .app(&app)
                .config(&pipeline("appHttpPipeline", &list))
                .resource(&middleware("upper", "uppercase", ""))
                .resource(&middleware("limit", "ratelimit", ""))
        },
    )
    .await?;
    let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
    let head = format!("POST {ECHO} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut seen = String::new();
    for part in ["first", "second"] {
        let chunk = format!("{:x}\r\n{part}\r\n", part.len());
        stream.write_all(chunk.as_bytes()).await?;
        let mut buffer = [0; 4096];
        while !seen.contains(&part.to_uppercase()) {
            let read = tokio::time::timeout(wait::LONG, stream.read(&mut buffer)).await??;
            anyhow::ensure!(read > 0, "ended after {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_middleware_that_fails_ends_the_sidecar() -> Result<()> {
    for (kind, metadata, cause) in [
        (
            "routerchecker",
            "{name: rule, value: '('}",
            "error creating HTTP middleware middleware.http.routerchecker/v1: failed to compile rule regexp",
        ),
        (
            "nothing",
            "",
            "HTTP middleware middleware.http.nothing/v1 has not been registered",
        ),
        (
            "ratelimit",
            "{name: maxRequestsPerSecond, value: '0'}",
            "must be a positive value",
        ),
    ] {
        let daprd = Daprd::builder()
            .resource(&middleware("m", kind, metadata))
            .spawn()?;
        daprd
            .line("Fatal error from runtime: failed to load components")
            .await?;
        let text = format!(
            "[CREATE_COMPONENT_FAILURE]: initialization error occurred for m (middleware.http.{kind}/v1): process component m error: "
        );
        let lines = daprd.lines();
        assert!(
            lines
                .iter()
                .any(|line| line.contains(&text) && line.contains(cause)),
            "{lines:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn requests_are_refused_while_a_wanted_middleware_is_not_in_use() -> Result<()> {
    let broken = middleware("check", "routerchecker", "{name: rule, value: '('}")
        .replace("version: v1", "version: v1, ignoreErrors: true");
    let app = HttpApp::start(echo()).await?;
    let list = [("check", "routerchecker"), ("unknown", "uppercase")];
    let daprd = Daprd::builder()
        .app(&app)
        .config(&pipeline("httpPipeline", &list))
        .config(&pipeline("appHttpPipeline", &[("check", "routerchecker")]))
        .resource(&broken)
        .start()
        .await?;
    let http = daprd.http();
    is(
        posted(&http, "/v1.0/invoke/app/method/echo").await?,
        503,
        "the middleware check is not in use\n",
    );
    daprd
        .line("pipeline server: unknown (middleware.http.uppercase) is left out")
        .await?;
    // Nothing reaches the application either.
    let mut grpc = daprd.grpc().await?;
    let request = || InvokeServiceRequest {
        id: "app".to_owned(),
        message: Some(invocation("echo")),
    };
    let refused = grpc
        .invoke_service(request())
        .await
        .expect_err("is refused");
    assert!(
        refused
            .message()
            .contains("the middleware check is not in use"),
        "{refused:?}"
    );
    let file = daprd.resources().join("0.yaml");
    std::fs::write(
        &file,
        middleware("check", "routerchecker", "{name: rule, value: '.'}"),
    )?;
    wait::until("the middleware is in use", || async {
        let answer = posted(&http, "/v1.0/invoke/app/method/echo").await.ok()?;
        (answer == (200, "hello".to_owned())).then_some(())
    })
    .await?;
    // What cannot be used leaves the one before in use.
    std::fs::write(
        &file,
        middleware("check", "routerchecker", "{name: rule, value: '('}"),
    )?;
    daprd.line("the one before stays in use").await?;
    is(
        posted(&http, "/v1.0/invoke/app/method/echo").await?,
        200,
        "hello",
    );
    std::fs::remove_file(&file)?;
    daprd
        .line("pipeline server: check (middleware.http.routerchecker) is left out")
        .await?;
    is(
        posted(&http, "/v1.0/invoke/app/method/echo").await?,
        200,
        "hello",
    );
    Ok(())
}

#[tokio::test]
async fn a_request_with_huge_headers_is_answered() -> Result<()> {
    let daprd = Daprd::builder()
        .config(&pipeline(
            "httpPipeline",
            &[("limit", "ratelimit"), ("check", "routerchecker")],
        ))
        .resource(&middleware(
            "limit",
            "ratelimit",
            "{name: maxRequestsPerSecond, value: '10000'}",
        ))
        .resource(&middleware(
            "check",
            "routerchecker",
            "{name: rule, value: '^(/[a-z0-9.]+)+$'}",
        ))
        .start()
        .await?;
    let http = daprd.http();
    for (path, value, status) in [
        ("/v1.0/metadata".to_owned(), "9,".repeat(1000), 200),
        (format!("/{}!", "a/".repeat(1000)), String::new(), 400),
    ] {
        let request = Request::get(path)
            .header("x-forwarded-for", value)
            .body(Full::default())?;
        assert_eq!(http.send(request).await?.status, status);
    }
    assert_eq!(http.get("/v1.0/metadata").await?.status, 200);
    Ok(())
}
