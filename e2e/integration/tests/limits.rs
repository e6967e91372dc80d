//! Clients that ask for too much.

use anyhow::Result;
use http::{Method, Request};
use outrider_harness::{Daprd, HttpApp};
use outrider_proto::runtime::v1::GetMetadataRequest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

#[tokio::test]
async fn headers_that_are_too_large_are_refused() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let with = |size: usize| {
        Request::get("/v1.0/metadata")
            .header("x-large", "x".repeat(size))
            .body(Default::default())
    };
    assert_eq!(daprd.http().send(with(3_000)?).await?.status, 200);
    assert_eq!(daprd.http().send(with(20_000)?).await?.status, 431);
    assert_eq!(daprd.http().get("/v1.0/healthz").await?.status, 204);
    Ok(())
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused() -> Result<()> {
    let app = HttpApp::start(axum::Router::new().fallback(async || "ok")).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("store", "state.in-memory")
        .flag("--max-body-size=1Mi")
        .start()
        .await?;
    let http = daprd.http();
    let save = |size: usize| json!([{"key": "a", "value": "x".repeat(size)}]);
    assert_eq!(
        http.post("/v1.0/state/store", &save(500_000)).await?.status,
        204
    );
    let refused = http.post("/v1.0/state/store", &save(2_000_000)).await?;
    assert_eq!(refused.status, 413);
    let call =
        |size: usize| http.request(Method::POST, "/v1.0/invoke/app/method/x", vec![b'x'; size]);
    assert_eq!(call(500_000).await?.status, 200);
    // The client is still sending when it is refused, and gets the answer all the
    // same.
    for _ in 0..20 {
        assert_eq!(call(8_000_000).await?.status, 413);
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_disconnected() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let mut stream = TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
    stream
        .write_all(b"GET /v1.0/metadata HTTP/1.1\r\nHost: ")
        .await?;
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open after 20 s");
    assert!(
        !rest.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    Ok(())
}

/// Clients keep connections for later. A server that closes them in the meantime
/// may lose a request that is on its way.
#[tokio::test]
async fn a_connection_stays_open_between_requests() -> Result<()> {
    const REST: Duration = Duration::from_secs(12);
    let daprd = Daprd::builder().start().await?;
    let mut stream = TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
    let mut buffer = [0; 1024];
    for _ in 0..2 {
        stream
            .write_all(b"GET /v1.0/healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            .await?;
        let length = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await??;
        assert!(buffer[..length].starts_with(b"HTTP/1.1 204 "));
        // What is waited for is that nothing comes, not even an end.
        let rested = timeout(REST, stream.read(&mut buffer)).await;
        assert!(rested.is_err(), "{rested:?}");
    }
    Ok(())
}

/// A client that stops in the middle of the first bytes of HTTP/2 is treated as
/// one that sends nothing.
#[tokio::test]
async fn a_client_that_stops_in_the_http_2_preface_is_disconnected() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let mut ends = tokio::task::JoinSet::new();
    for port in [daprd.http_port(), daprd.grpc_port(), daprd.internal_port()] {
        for preface in [&b"PRI * HTTP/2"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            ends.spawn(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                stream.write_all(preface).await?;
                let mut rest = Vec::new();
                let limit = Duration::from_secs(40);
                let closed = timeout(limit, stream.read_to_end(&mut rest)).await;
                anyhow::ensure!(closed.is_ok(), "port {port}: {preface:?}");
                anyhow::Ok(())
            });
        }
    }
    while let Some(ended) = ends.join_next().await {
        ended??;
    }
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_not_http_are_refused() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
        stream.write_all(noise).await?;
        stream.shutdown().await?;
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await?;
        assert!(
            read.is_err() || !rest.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    }
    assert_eq!(daprd.http().get("/v1.0/healthz").await?.status, 204);
    Ok(())
}

/// Memory that a header may cost, whatever its length.
const GROWTH: u64 = 32 << 20;
const GIGABYTE: usize = 1 << 30;

/// Sends pieces until the server stops reading. Returns how many bytes were sent.
async fn flood(stream: &mut TcpStream, piece: &[u8]) -> usize {
    let mut sent = 0;
    while sent < GIGABYTE {
        match timeout(Duration::from_secs(20), stream.write_all(piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            _ => break,
        }
    }
    sent
}

#[tokio::test]
async fn an_endless_header_is_cut_off_in_constant_memory() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let before = daprd.memory()?;
    let mut stream = TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
    stream
        .write_all(b"GET /v1.0/metadata HTTP/1.1\r\nHost: a\r\nx-large: ")
        .await?;
    let sent = flood(&mut stream, &[b'x'; 64 << 10]).await;
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    let grown = daprd.memory()?.saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    assert_eq!(daprd.http().get("/v1.0/healthz").await?.status, 204);
    Ok(())
}

/// <https://www.rfc-editor.org/rfc/rfc9113#section-6.10>
#[tokio::test]
async fn endless_continuation_frames_are_cut_off_in_constant_memory() -> Result<()> {
    const LENGTH: usize = 16 << 10;
    let frame = |kind: u8| {
        let mut frame = vec![0, (LENGTH >> 8) as u8, LENGTH as u8, kind, 0, 0, 0, 0, 1];
        // A header field with a literal name and value, repeated.
        while frame.len() < 9 + LENGTH {
            frame.extend(b"\x00\x01a\x04bbbb");
        }
        frame.truncate(9 + LENGTH);
        frame
    };
    let daprd = Daprd::builder().start().await?;
    for port in [daprd.grpc_port(), daprd.internal_port()] {
        let before = daprd.memory()?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        stream.write_all(&frame(1)).await?;
        let sent = flood(&mut stream, &frame(9)).await;
        assert!(sent < 64 << 20, "{sent} bytes were taken");
        let grown = daprd.memory()?.saturating_sub(before);
        assert!(grown < GROWTH, "{grown} bytes more");
    }
    assert_eq!(
        daprd
            .grpc()
            .await?
            .get_metadata(GetMetadataRequest {})
            .await?
            .into_inner()
            .id,
        "app"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_that_drips_its_head_is_disconnected() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let mut stream = TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
    stream
        .write_all(b"GET /v1.0/metadata HTTP/1.1\r\nx-slow: ")
        .await?;
    let (mut reader, mut writer) = stream.into_split();
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    // One byte of a header every 250 ms, without end.
    let drip = async {
        loop {
            tick.tick().await;
            if writer.write_all(b"x").await.is_err() {
                break;
            }
        }
    };
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(30), async {
        tokio::select! {
            () = drip => {}
            _ = reader.read_to_end(&mut rest) => {}
        }
    });
    assert!(closed.await.is_ok(), "still open after 30 s");
    assert!(
        !rest.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    Ok(())
}
