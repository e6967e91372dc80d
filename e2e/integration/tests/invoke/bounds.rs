//! Limits of what a peer, a host or an application can make a sidecar hold.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, GrpcApp, HttpApp, Pair, invocation};
use outrider_proto::common::v1::{InvokeResponse, StateItem};
use outrider_proto::internals::v1::{InternalInvokeRequest, ListStringValue};
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use outrider_proto::runtime::v1::{GetBulkStateRequest, InvokeServiceRequest, SaveStateRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// Answers 500 with a body that never ends.
fn endless() -> Router {
    let body = || {
        let pieces = std::iter::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 65536])));
        Body::from_stream(tokio_stream::iter(pieces))
    };
    Router::new()
        .route("/bad", any(async || (StatusCode::BAD_REQUEST, "what?")))
        .fallback(async move || (StatusCode::INTERNAL_SERVER_ERROR, body()))
}

fn service(method: &str) -> InvokeServiceRequest {
    InvokeServiceRequest {
        id: "called".to_owned(),
        message: Some(invocation(method)),
    }
}

#[tokio::test]
async fn an_endless_error_body_is_streamed_in_constant_memory() -> Result<()> {
    const READ: usize = 128 << 20;
    let app = HttpApp::start(endless()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let outside = format!("http://127.0.0.1:{}", app.port());
    for target in ["called", &outside] {
        let before = [pair.caller.memory()?, pair.called.memory()?];
        let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
        let head = format!("GET /v1.0/invoke/{target}/method/x HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
        let reading = async {
            while read < READ {
                let length = stream.read(&mut buffer).await?;
                anyhow::ensure!(length > 0, "ended after {read} bytes");
                read += length;
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await??;
        for (daprd, before) in [&pair.caller, &pair.called].into_iter().zip(before) {
            let grown = daprd.memory()?.saturating_sub(before);
            assert!(grown < 48 << 20, "{grown} bytes more with {target}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_has_to_be_buffered_has_a_limit() -> Result<()> {
    let app = HttpApp::start(endless()).await?;
    let limit = "--max-body-size=1Mi";
    let pair = Pair::both(|b| b.flag(limit), |b| b.app(&app).flag(limit)).await?;
    let mut grpc = pair.caller.grpc().await?;
    let refused = grpc
        .invoke_service(service("x"))
        .await
        .expect_err("is endless");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().ends_with("stream too large"), "{refused}");
    // By a peer that knows unary calls only.
    let mut peer = pair.called.internal().await?;
    let request = InternalInvokeRequest {
        message: Some(invocation("x")),
        ..Default::default()
    };
    let refused = peer.call_local(request).await.expect_err("is endless");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_peer_with_too_many_headers_is_refused() -> Result<()> {
    let http = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let grpc = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    let to_http = Daprd::builder().app(&http).start().await?;
    let to_grpc = Daprd::builder().grpc_app(&grpc).start().await?;
    for daprd in [&to_http, &to_grpc] {
        let mut peer = daprd.internal().await?;
        let with = |count: usize| InternalInvokeRequest {
            metadata: (0..count)
                .map(|n| {
                    let values = vec!["1".to_owned()];
                    (format!("x-{n}"), ListStringValue { values })
                })
                .collect(),
            message: Some(invocation("x")),
            ..Default::default()
        };
        let refused = peer.call_local(with(30_000)).await.expect_err("has many");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let expected = "has 30000 headers: send 4096 at most";
        assert!(refused.message().contains(expected), "{refused}");
        peer.call_local(with(20)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn bodies_over_the_limit_are_413_on_every_route() -> Result<()> {
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("mem", "state.in-memory")
        .component("ps", "pubsub.in-memory")
        .flag("--max-body-size=1Mi")
        .start()
        .await?;
    let body = vec![b'1'; 2 << 20];
    for (method, path) in [
        (Method::POST, "/v1.0/state/mem"),
        (Method::POST, "/v1.0/state/mem/bulk"),
        (Method::POST, "/v1.0/state/mem/transaction"),
        (Method::POST, "/v1.0/publish/ps/t"),
        (Method::POST, "/v1.0/publish/bulk/ps/t"),
        (Method::PUT, "/v1.0/metadata/k"),
        (Method::POST, "/v1.0/invoke/app/method/x"),
    ] {
        let refused = daprd.http().request(method, path, body.clone()).await?;
        assert_eq!(refused.status, 413, "{path}: {}", refused.text());
        assert!(refused.error()?.1.contains("stream too large"), "{path}");
    }
    // A body without a content-length.
    let mut stream = TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
    stream
        .write_all(b"POST /v1.0/invoke/app/method/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n")
        .await?;
    stream.write_all(&body).await?;
    stream.write_all(b"\r\n0\r\n\r\n").await?;
    let mut buffer = [0; 1024];
    let length = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await??;
    let answer = String::from_utf8_lossy(&buffer[..length]);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    Ok(())
}

#[tokio::test]
async fn grpc_messages_over_the_limit_exhaust_a_resource() -> Result<()> {
    let daprd = Daprd::builder()
        .component("mem", "state.in-memory")
        .flag("--max-body-size=1Mi")
        .start()
        .await?;
    let mut grpc = daprd.grpc().await?;
    let save = |key: &str, size: usize| SaveStateRequest {
        store_name: "mem".to_owned(),
        states: vec![StateItem {
            key: key.to_owned(),
            value: vec![b'1'; size].into(),
            ..Default::default()
        }],
    };
    let refused = grpc
        .save_state(save("a", 2 << 20))
        .await
        .expect_err("is long");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let expected = "grpc: received message larger than max (";
    assert!(refused.message().starts_with(expected), "{refused}");
    for key in ["a", "b"] {
        grpc.save_state(save(key, 700_000)).await?;
    }
    let both = GetBulkStateRequest {
        store_name: "mem".to_owned(),
        keys: vec!["a".to_owned(), "b".to_owned()],
        ..Default::default()
    };
    let refused = grpc.get_bulk_state(both).await.expect_err("is long");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let expected = "grpc: trying to send message larger than max (";
    assert!(refused.message().starts_with(expected), "{refused}");
    Ok(())
}

#[tokio::test]
async fn the_http_status_of_the_application_is_a_grpc_header() -> Result<()> {
    let app = HttpApp::start(endless()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let mut grpc = pair.caller.grpc().await?;
    let refused = grpc
        .invoke_service(service("bad"))
        .await
        .expect_err("is refused");
    // The 400 of the application becomes a gRPC code.
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let status = refused.metadata().get("dapr-http-status");
    assert_eq!(status.map(|v| v.as_bytes()), Some(&b"400"[..]));
    // The message as bytes, to see which headers come before the body.
    let message = b"\x0a\x06called\x1a\x09\x0a\x03bad\x22\x02\x08\x01";
    let framed = [&[0, 0, 0, 0, message.len() as u8][..], message].concat();
    let request = Request::post("/dapr.proto.runtime.v1.Dapr/InvokeService")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(framed))?;
    let answer = Client::h2c(pair.caller.grpc_port()).send(request).await?;
    assert_eq!(answer.header("dapr-http-status"), Some("400"));
    assert_eq!(answer.header("grpc-status"), None, "{:?}", answer.headers);
    Ok(())
}

#[tokio::test]
async fn proxied_calls_count_for_the_concurrency_limit() -> Result<()> {
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let seen = most.clone();
    let answer = async move || {
        let count = now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(count, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        now.fetch_sub(1, Ordering::SeqCst);
        [("content-type", "application/grpc"), ("grpc-status", "15")]
    };
    let app = HttpApp::start(Router::new().fallback(answer)).await?;
    let limited = ["--app-max-concurrency=1", "--app-protocol=grpc"];
    let pair =
        Pair::start(|called| limited.iter().fold(called.app(&app), |b, f| b.flag(f))).await?;
    let mut calls = tokio::task::JoinSet::new();
    for daprd in [&pair.caller, &pair.called] {
        for _ in 0..8 {
            let mut client = AppCallbackClient::new(daprd.channel().await?);
            let mut request = tonic::Request::new(invocation("x"));
            let target = "called".parse()?;
            request.metadata_mut().insert("dapr-app-id", target);
            calls.spawn(async move { client.on_invoke(request).await });
        }
    }
    while let Some(answered) = calls.join_next().await {
        assert_eq!(answered?.expect_err("fails").code(), Code::DataLoss);
    }
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert!(app.seen().len() >= 16);
    Ok(())
}
