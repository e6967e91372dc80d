//! Bytes stay bytes where the wire allows them.

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::any;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use outrider_harness::{Daprd, GrpcApp, HttpApp, Pair};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;

const LATIN: &[u8] = b"caf\xe9";

fn router() -> Router {
    Router::new()
        .route("/long", any(async || "hello, this is long"))
        .fallback(async || {
            let latin = HeaderValue::from_bytes(LATIN);
            ([("x-answer", latin.expect("is a value"))], "ok")
        })
}

#[tokio::test]
async fn paths_and_headers_need_not_be_utf_8() -> Result<()> {
    let app = HttpApp::start(router()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let outside = format!("http://127.0.0.1:{}", app.port());
    for (daprd, target) in [
        (&pair.caller, "called"),
        (&pair.called, "called"),
        (&pair.caller, &*outside),
    ] {
        let request = Request::get(format!("/v1.0/invoke/{target}/method/caf%E9/%C3%A9"))
            .header("x-given", HeaderValue::from_bytes(LATIN)?);
        let answer = daprd.http().send(request.body(Full::default())?).await?;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let given = answer.headers.get("x-answer").map(HeaderValue::as_bytes);
        assert_eq!(given, Some(LATIN), "{target}");
        let seen = app.last().context("was not called")?;
        assert_eq!(seen.target, "/caf%E9/%C3%A9", "{target}");
        let given = seen.headers.get("x-given").map(HeaderValue::as_bytes);
        assert_eq!(given, Some(LATIN), "{target}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_topics_and_names_have_to_be_utf_8() -> Result<()> {
    let daprd = Daprd::builder()
        .component("mem", "state.in-memory")
        .component("ps", "pubsub.in-memory")
        .start()
        .await?;
    let http = daprd.http();
    let save = serde_json::json!([{"key": "k\u{fffd}", "value": 1}]);
    assert_eq!(http.post("/v1.0/state/mem", &save).await?.status, 204);
    for (method, path) in [
        (Method::DELETE, "/v1.0/state/mem/k%E9"),
        (Method::GET, "/v1.0/state/mem/k%E9"),
        (Method::GET, "/v1.0/state/mem/k?metadata.a=%E9"),
        (Method::POST, "/v1.0/publish/ps/t%E9"),
        (Method::PUT, "/v1.0/metadata/k%E9"),
    ] {
        let refused = http.request(method.clone(), path, "1").await?;
        assert_eq!(refused.status, 400, "{method} {path}");
        assert_eq!(refused.error()?.0, "ERR_MALFORMED_REQUEST");
    }
    let value = http.request(Method::PUT, "/v1.0/metadata/k", LATIN).await?;
    assert_eq!(value.status, 400);
    let kept = http.get("/v1.0/state/mem/k%EF%BF%BD").await?;
    assert_eq!((kept.status, &*kept.text()), (200, "1"));
    Ok(())
}

#[tokio::test]
async fn head_returns_the_content_length_of_get() -> Result<()> {
    let app = HttpApp::start(router()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    for daprd in [&pair.caller, &pair.called] {
        let path = "/v1.0/invoke/called/method/long";
        let answer = daprd.http().request(Method::HEAD, path, "").await?;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), Some("19"));
        assert!(answer.body.is_empty());
        let answer = daprd.http().get(path).await?;
        assert_eq!(answer.text(), "hello, this is long");
    }
    Ok(())
}

/// The binary form is that of older clients, and some have no other.
#[tokio::test]
async fn a_proxied_call_keeps_its_trace_in_both_forms() -> Result<()> {
    let app = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    let pair = Pair::start(|called| called.grpc_app(&app)).await?;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let binary: &[u8] = &[
        0, 0, 0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e,
        0x47, 0x36, 1, 0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7, 2, 1,
    ];
    for daprd in [&pair.caller, &pair.called] {
        for is_binary in [true, false] {
            let mut request = tonic::Request::new(InvokeRequest::default());
            let metadata = request.metadata_mut();
            metadata.insert("dapr-app-id", "called".parse()?);
            if is_binary {
                let value = tonic::metadata::MetadataValue::from_bytes(binary);
                metadata.insert_bin("grpc-trace-bin", value);
            } else {
                metadata.insert("traceparent", trace.parse()?);
            }
            AppCallbackClient::new(daprd.channel().await?)
                .on_invoke(request)
                .await?;
            let (metadata, _) = app.last().context("was not called")?;
            let text = metadata.get("traceparent").map(|v| v.as_bytes());
            assert_eq!(text, Some(trace.as_bytes()));
            let bytes = metadata.get_bin("grpc-trace-bin").context("no trace")?;
            assert_eq!(&bytes.to_bytes()?[..], binary);
        }
    }
    Ok(())
}
