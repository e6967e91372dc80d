use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::{any, post};
use http::{Method, StatusCode};
use outrider_harness::http::{Answer, Client};
use outrider_harness::{Daprd, GrpcApp, HttpApp, Pair, wait};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::InvokeServiceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use super::{Calls, for_calls, resource};

const QUICK: &str =
    "{retries: {quick: {duration: 10ms, maxRetries: 3, matching: {httpStatusCodes: 500-599}}}}";

/// `/flaky/<n>` succeeds at the n-th call, `/status/<n>` answers with that
/// status, `/never` does not answer.
fn routes(calls: &Calls) -> Router {
    let (flaky, status) = (calls.clone(), calls.clone());
    Router::new()
        .route(
            "/flaky/{times}",
            any(async move |Path(times): Path<u32>, body: String| {
                if flaky.next() < times {
                    (StatusCode::SERVICE_UNAVAILABLE, "not yet".to_owned())
                } else {
                    (StatusCode::OK, body)
                }
            }),
        )
        .route(
            "/status/{code}",
            any(async move |Path(code): Path<u16>| {
                status.next();
                (StatusCode::from_u16(code).unwrap_or_default(), "status")
            }),
        )
        .route("/never", post(async || std::future::pending::<()>().await))
        .fallback(async |body: String| body)
}

async fn call(client: &Client, method: &str) -> Result<Answer> {
    let path = format!("/v1.0/invoke/called/method/{method}");
    client.request(Method::POST, &path, "hello").await
}

#[tokio::test]
async fn a_failed_call_is_retried() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = for_calls(QUICK, "{retry: quick}");
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    let http = pair.caller.http();
    let answer = call(&http, "flaky/3").await?;
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    assert_eq!(calls.take(), 3);
    pair.caller
        .line(
            "Error processing operation endpoint[called, called:flaky/3]. Retrying in 10ms\u{2026}",
        )
        .await?;
    pair.caller
        .line("Recovered processing operation endpoint[called, called:flaky/3] after 3 attempts")
        .await?;

    // The last answer is passed on, and other codes are not tried again.
    for (status, tries) in [(503, 4), (404, 1), (302, 1), (204, 1)] {
        let answer = call(&http, &format!("status/{status}")).await?;
        assert_eq!((answer.status, calls.take()), (status, tries));
        let body = if status == 204 { "" } else { "status" };
        assert_eq!(answer.text(), body);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_passes_through_is_sent_once() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = for_calls(
        "{retries: {quick: {duration: 10ms, maxRetries: 3}}, circuitBreakers: {b: {trip: consecutiveFailures >= 2}}}",
        "{retry: quick, circuitBreaker: b}",
    );
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    for expected in ["status", "status", "circuit breaker is open"] {
        let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
        stream
            .write_all(b"POST /v1.0/invoke/called/method/status/500 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .await?;
        let mut answer = String::new();
        tokio::time::timeout(wait::LONG, stream.read_to_string(&mut answer)).await??;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        assert!(answer.contains(expected), "{answer}");
    }
    assert_eq!(calls.take(), 2);
    Ok(())
}

#[tokio::test]
async fn a_call_times_out() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = for_calls("{timeouts: {soon: 1s}}", "{timeout: soon}");
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    let http = pair.caller.http();
    let began = Instant::now();
    // Many that hang do not keep others from being served.
    let hanging = (0..50).map(|_| call(&http, "never"));
    for answer in futures(hanging).await {
        let answer = answer?;
        let expected = (
            "ERR_DIRECT_INVOKE".to_owned(),
            "failed to invoke, id: called, err: context deadline exceeded".to_owned(),
        );
        assert_eq!((answer.status, answer.error()?), (500, expected));
        assert_eq!(call(&http, "echo").await?.text(), "hello");
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
    let seen = app.seen();
    assert_eq!(seen.iter().filter(|s| s.target == "/echo").count(), 50);
    Ok(())
}

async fn futures<T: Send + 'static>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        running.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}

#[tokio::test]
async fn a_breaker_opens_and_closes() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = for_calls(
        "{circuitBreakers: {b: {timeout: 1s, trip: consecutiveFailures >= 2}}}",
        "{circuitBreaker: b}",
    );
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    let http = pair.caller.http();
    for _ in 0..2 {
        assert_eq!(call(&http, "flaky/4").await?.status, 503);
    }
    let open = || async {
        let answer = call(&http, "flaky/4").await?;
        anyhow::Ok((answer.status, answer.error()?.1))
    };
    let message = "failed to invoke, id: called, err: circuit breaker is open".to_owned();
    assert_eq!(open().await?, (500, message.clone()));
    // Other methods have breakers of their own.
    assert_eq!(call(&http, "echo").await?.status, 200);
    assert_eq!(calls.0.load(std::sync::atomic::Ordering::SeqCst), 2);

    // Half open, the first call fails once more, and the next succeeds.
    let not_open = |status| {
        let http = &http;
        async move {
            let what = format!("the application is called again and answers {status}");
            wait::until(&what, || async {
                let answer = call(http, "flaky/4").await.ok()?;
                (answer.status != 500).then_some(answer.status)
            })
            .await
        }
    };
    assert_eq!(not_open(503).await?, 503);
    assert_eq!(open().await?, (500, message));
    assert_eq!(not_open(200).await?, 200);
    assert_eq!(call(&http, "flaky/4").await?.status, 200);
    let changes = [
        "from closed to open",
        "from open to half-open",
        "from half-open to open",
        "from half-open to closed",
    ];
    for change in changes {
        let line = pair.caller.line(&format!("changed state {change}")).await?;
        assert!(line.contains("called:flaky/4"), "{line}");
    }
    let page = Client::new(pair.caller.metrics_port())
        .get("/metrics")
        .await?
        .text();
    for (metric, status, value) in [
        ("count", "closed", 6),
        ("activations_total", "open", 2),
        ("activations_total", "closed", 1),
        ("cb_state", "closed", 1),
        ("cb_state", "open", 0),
        ("cb_state", "half-open", 0),
        ("cb_state", "unknown", 0),
    ] {
        let start = format!(
            "dapr_resiliency_{metric}{{app_id=\"caller\",flow_direction=\"outbound\",name=\"rules\",namespace=\"\",policy=\"circuitbreaker\",status=\"{status}\",target=\"app_called\"}} "
        );
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        let found: u32 = line
            .with_context(|| format!("no {start} in\n{page}"))?
            .parse()?;
        // The test repeats its call until the breaker closes: the number of calls meanwhile varies.
        if metric == "count" {
            assert!(found >= 4, "{found}");
        } else {
            assert_eq!(found, value, "{metric} {status}");
        }
    }
    assert!(
        page.contains("dapr_resiliency_loaded{app_id=\"caller\",name=\"rules\",namespace=\"\"} 1")
    );
    Ok(())
}

#[tokio::test]
async fn defaults_apply_by_their_names_and_instead_of_the_built_in_ones() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = resource(
        "{retries: {DefaultAppRetryPolicy: {duration: 10ms, maxRetries: 1}, DefaultRetryPolicy: {maxRetries: 9}}}",
        "{apps: {other: {}}}",
    );
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    let http = pair.caller.http();
    assert_eq!(call(&http, "status/400").await?.status, 400);
    assert_eq!(calls.take(), 2);
    // The called sidecar is gone; the built-in policy would take 3 s.
    pair.called.stop().await?;
    let began = Instant::now();
    assert_eq!(call(&http, "echo").await?.status, 500);
    assert!(began.elapsed() < Duration::from_secs(2));
    Ok(())
}

#[tokio::test]
async fn retries_do_not_delay_the_shutdown() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = for_calls("{retries: {endless: {duration: 1h}}}", "{retry: endless}");
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    let http = pair.caller.http();
    let ending = async {
        pair.caller.line("Retrying in 1h0m0s").await?;
        let began = Instant::now();
        let code = pair.caller.stop().await?;
        anyhow::Ok((code, began.elapsed() < Duration::from_secs(4)))
    };
    let (answer, ended) = tokio::join!(call(&http, "status/503"), ending);
    assert_eq!((answer?.status, ended?), (503, (Some(0), true)));
    Ok(())
}

#[tokio::test]
async fn an_answer_body_that_times_out_breaks_off() -> Result<()> {
    let router = Router::new().route(
        "/slow",
        any(async || {
            let first = tokio_stream::once(Ok::<_, std::convert::Infallible>("first"));
            let body = first.chain(tokio_stream::pending());
            Body::from_stream(body)
        }),
    );
    let app = HttpApp::start(router).await?;
    let rules = for_calls("{timeouts: {soon: 300ms}}", "{timeout: soon}");
    let pair = Pair::both(|caller| caller.resource(&rules), |called| called.app(&app)).await?;
    let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
    stream
        .write_all(b"POST /v1.0/invoke/called/method/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(wait::LONG, stream.read_to_end(&mut answer)).await?;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("first"), "{answer} {read:?}");
    assert!(!answer.ends_with("0\r\n\r\n"), "looks complete: {answer}");
    Ok(())
}

#[tokio::test]
async fn no_call_fails_while_the_called_sidecar_restarts() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let rules = for_calls(
        "{retries: {persistent: {duration: 50ms, maxRetries: 100}}}",
        "{retry: persistent}",
    );
    let names = tempfile::tempdir()?;
    let named = |app_id: &str| Daprd::builder().app_id(app_id).names(names.path());
    let mut called = named("called").app(&app).start().await?;
    let caller = named("caller").resource(&rules).start().await?;
    let http = caller.http();
    let over = std::cell::Cell::new(false);
    let load = async {
        let mut made = 0;
        while !over.get() {
            for answer in futures((0..8).map(|_| call(&http, "echo"))).await {
                let answer = answer?;
                anyhow::ensure!(
                    (answer.status, &*answer.text()) == (200, "hello"),
                    "{} {} after {made}",
                    answer.status,
                    answer.text()
                );
                made += 1;
            }
        }
        anyhow::Ok(made)
    };
    let restarts = async {
        for _ in 0..3 {
            let next = named("called").app(&app).start().await?;
            called.stop().await?;
            called = next;
            let seen = app.seen().len();
            wait::until("the new one is called", || async {
                (app.seen().len() > seen + 50).then_some(())
            })
            .await?;
        }
        over.set(true);
        anyhow::Ok(())
    };
    let (made, restarted) = tokio::join!(load, restarts);
    restarted?;
    assert!(made? > 150);
    Ok(())
}

#[tokio::test]
async fn a_broken_resource_is_logged_and_left_out() -> Result<()> {
    let calls = Calls::default();
    let app = HttpApp::start(routes(&calls)).await?;
    let broken = for_calls(
        "{retries: {quick: {maxRetries: 3, matching: {httpStatusCodes: 11}}}}",
        "{retry: quick}",
    );
    let unknown = resource("{}", "{apps: {called: {circuitBreaker: nowhere}}}");
    let pair = Pair::both(
        |caller| {
            caller
                .resource(&broken)
                .resource(&unknown.replace("rules", "names"))
        },
        |called| called.app(&app),
    )
    .await?;
    pair.caller
        .line("Could not read resiliency policy rules: invalid pattern 11, start code 11 is not valid")
        .await?;
    pair.caller
        .line("there is no circuit breaker called nowhere")
        .await?;
    let http = pair.caller.http();
    assert_eq!(call(&http, "status/500").await?.status, 500);
    assert_eq!(calls.take(), 1);
    Ok(())
}

#[tokio::test]
async fn the_deprecated_grpc_call_is_retried() -> Result<()> {
    let calls = Calls::default();
    let counted = calls.clone();
    let app = GrpcApp::start(move |request: InvokeRequest| {
        let number = counted.next();
        match request.method.as_str() {
            "flaky" if number < 3 => Err(Status::aborted("not yet")),
            "refuse" => Err(Status::data_loss("no")),
            _ => Ok(InvokeResponse {
                data: request.data,
                content_type: String::new(),
            }),
        }
    })
    .await?;
    let rules = for_calls(
        "{retries: {quick: {duration: 10ms, maxRetries: 3, matching: {gRPCStatusCodes: '10'}}}}",
        "{retry: quick}",
    );
    let pair = Pair::both(
        |caller| caller.resource(&rules),
        |called| called.grpc_app(&app),
    )
    .await?;
    let mut grpc = pair.caller.grpc().await?;
    let mut call = async |method: &str| {
        let message = InvokeRequest {
            method: method.to_owned(),
            ..InvokeRequest::default()
        };
        grpc.invoke_service(InvokeServiceRequest {
            id: "called".to_owned(),
            message: Some(message),
        })
        .await
    };
    call("flaky").await?;
    assert_eq!(calls.take(), 3);
    let error = call("refuse").await.expect_err("is refused");
    assert_eq!((error.code(), calls.take()), (Code::DataLoss, 1));
    Ok(())
}
