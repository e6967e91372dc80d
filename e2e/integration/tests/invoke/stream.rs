use std::convert::Infallible;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bytes::Bytes;
use outrider_harness::{HttpApp, feed, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::Pair;

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

#[tokio::test]
async fn an_answer_is_passed_on_while_it_is_made() -> Result<()> {
    let (parts, body) = feed::<Bytes>();
    let body = std::sync::Mutex::new(Some(body.map(Ok::<_, Infallible>)));
    let body = std::sync::Arc::new(body);
    let router = Router::new().route(
        "/parts",
        post(async move || {
            let body = body
                .lock()
                .expect("no panic")
                .take()
                .expect("is called once");
            Body::from_stream(body)
        }),
    );
    let app = HttpApp::start(router).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;

    let mut stream = TcpStream::connect(("127.0.0.1", pair.caller.http_port())).await?;
    stream
        .write_all(b"POST /v1.0/invoke/called/method/parts HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await?;
    for part in ["first", "second"] {
        parts.send(part.into()).await?;
        read_until(&mut stream, part).await?;
    }
    drop(parts);
    read_until(&mut stream, "0\r\n\r\n").await
}

#[tokio::test]
async fn a_request_is_passed_on_while_it_is_made() -> Result<()> {
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
async fn large_bodies_survive() -> Result<()> {
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
