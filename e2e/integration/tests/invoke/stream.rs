use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::routing::{any, post};
use bytes::Bytes;
use outrider_harness::{Builder, HttpApp, Pair, feed, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt;

/// Reads until `text` has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = timeout(wait::LONG, stream.read(&mut buffer))
            .await
            .context("nothing comes")??;
        anyhow::ensure!(read > 0, "ended after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    Ok(())
}

/// An application whose only answer consists of the parts that are sent to it.
async fn feeding() -> Result<(Sender<Bytes>, HttpApp)> {
    let (parts, body) = feed::<Bytes>();
    let body = Arc::new(Mutex::new(Some(body.map(Ok::<_, Infallible>))));
    let router = Router::new().route(
        "/parts",
        any(async move || {
            let body = body.lock().expect("no panic").take();
            Body::from_stream(body.expect("is called once"))
        }),
    );
    Ok((parts, HttpApp::start(router).await?))
}

/// Feeds the answer and reads it at the other end, part by part to its end.
async fn passed_on(parts: Sender<Bytes>, stream: &mut TcpStream) -> Result<()> {
    for part in ["first", "second"] {
        parts.send(part.into()).await?;
        read_until(stream, part).await?;
    }
    drop(parts);
    read_until(stream, "0\r\n\r\n").await
}

#[tokio::test]
async fn an_answer_is_streamed_to_the_caller() -> Result<()> {
    let (parts, app) = feeding().await?;
    let pair = Pair::start(|called| called.app(&app)).await?;

    let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
    stream
        .write_all(b"POST /v1.0/invoke/called/method/parts HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await?;
    passed_on(parts, &mut stream).await
}

#[tokio::test]
async fn a_request_is_streamed_to_the_application() -> Result<()> {
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel::<Bytes>(8);
    let router = Router::new().route(
        "/parts",
        post(async move |body: Body| {
            let mut body = body.into_data_stream();
            while let Some(Ok(part)) = body.next().await {
                let _ = arrived.send(part).await;
            }
            "all"
        }),
    );
    let app = HttpApp::streaming(router).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;

    let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
    stream
        .write_all(b"POST /v1.0/invoke/called/method/parts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    for part in ["first", "other"] {
        stream
            .write_all(format!("5\r\n{part}\r\n").as_bytes())
            .await?;
        let got = timeout(wait::LONG, arrivals.recv())
            .await?
            .context("the request ended")?;
        assert_eq!(&got[..], part.as_bytes());
    }
    stream.write_all(b"0\r\n\r\n").await?;
    read_until(&mut stream, "all").await
}

#[tokio::test]
async fn large_bodies_arrive_unchanged() -> Result<()> {
    let app = HttpApp::start(
        Router::new()
            .fallback(async |body: Bytes| body)
            .layer(axum::extract::DefaultBodyLimit::disable()),
    )
    .await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let body: Vec<u8> = (0..3_500_000u32).map(|n| (n % 251) as u8).collect();
    let answer = pair
        .caller
        .http()
        .request(
            http::Method::POST,
            "/v1.0/invoke/called/method/echo",
            body.clone(),
        )
        .await?;
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    Ok(())
}

/// Answers every request with these bytes and closes the connection.
async fn raw(answer: &'static str) -> Result<(u16, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if read_until(&mut stream, "\r\n\r\n").await.is_ok() {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    Ok((port, server))
}

#[tokio::test]
async fn an_answer_shorter_than_its_length_is_passed_on_and_logged() -> Result<()> {
    let (port, _server) = raw(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n\"ok\"",
    )
    .await?;
    let flag = format!("--app-port={port}");
    let pair = Pair::start(|called| called.flag(&flag)).await?;
    for sidecar in [&pair.caller, &pair.called] {
        let answer = sidecar
            .http()
            .get("/v1.0/invoke/called/method/short")
            .await?;
        assert_eq!((answer.status, answer.text().as_str()), (200, "\"ok\""));
    }
    let line = "ended 995 bytes before the length that it declared";
    pair.called.line(line).await.map(drop)
}

#[tokio::test]
async fn a_chunked_answer_that_breaks_off_is_an_error() -> Result<()> {
    let (port, _server) =
        raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await?;
    let flag = format!("--app-port={port}");
    let pair = Pair::start(|called| called.flag(&flag)).await?;
    for sidecar in [&pair.caller, &pair.called] {
        let answer = sidecar
            .http()
            .get("/v1.0/invoke/called/method/broken")
            .await;
        assert!(answer.is_err(), "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_for_events_to_a_route_without_them_is_an_error() -> Result<()> {
    let app = HttpApp::start(Router::new()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let answer = pair
        .caller
        .http()
        .with("accept", "text/event-stream")
        .get("/v1.0/invoke/called/method/events")
        .await?;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.error()?,
        (
            "ERR_DIRECT_INVOKE".to_owned(),
            "failed to invoke, id: called, err: rpc error: code = Internal desc = error invoking app channel: no response received from stream".to_owned()
        )
    );
    Ok(())
}

#[tokio::test]
async fn a_running_stream_keeps_its_connection_from_being_purged() -> Result<()> {
    let (parts, app) = feeding().await?;
    let quick = |caller: Builder| {
        caller
            .flag("--log-level=debug")
            .env("DAPR_GRPC_MAX_CONN_IDLE", "10ms")
            .env("DAPR_GRPC_CONN_COLLECTOR_INTERVAL", "10ms")
    };
    let pair = Pair::both(quick, |called| called.app(&app)).await?;
    let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
    stream
        .write_all(b"GET /v1.0/invoke/called/method/parts HTTP/1.1\r\nHost: x\r\n\r\n")
        .await?;
    passed_on(parts, &mut stream).await?;
    let line = "Purged 1 expired gRPC connection(s) to";
    pair.caller.line(line).await.map(drop)
}
