use anyhow::{Context, Result};
use outrider_harness::Daprd;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_text_line_has_the_fields_of_dapr() -> Result<()> {
    let daprd = Daprd::builder().app_id("cart").start().await?;
    let line = daprd.line("dapr initialized. Status: Running.").await?;
    for part in [
        "time=\"",
        " level=info ",
        " msg=\"dapr initialized.",
        " app_id=cart ",
        " scope=dapr.runtime ",
        " type=log ",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    daprd.line("Starting Dapr Runtime -- version ").await?;
    let port = daprd.http_port();
    daprd
        .line(&format!("HTTP server is running on port {port}"))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_json_line_has_the_fields_of_dapr() -> Result<()> {
    let daprd = Daprd::builder()
        .app_id("cart")
        .flag("--log-as-json")
        .start()
        .await?;
    let line = daprd.line("dapr initialized. Status: Running.").await?;
    let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    for (key, value) in [
        ("app_id", "cart"),
        ("level", "info"),
        ("scope", "dapr.runtime"),
        ("type", "log"),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn api_logging_logs_each_call() -> Result<()> {
    let daprd = Daprd::builder()
        .flag("--enable-api-logging")
        .start()
        .await?;
    daprd.http().get("/v1.0/metadata").await?;
    let line = daprd.line("HTTP API Called").await?;
    assert!(line.contains("GET /v1.0/metadata"), "{line}");
    Ok(())
}

#[tokio::test]
async fn numbers_stay_numbers_in_json() -> Result<()> {
    let daprd = Daprd::builder()
        .flag("--enable-api-logging")
        .flag("--log-as-json")
        .start()
        .await?;
    daprd.http().get("/v1.0/healthz").await?;
    let line = daprd.line("HTTP API Called").await?;
    let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    assert_eq!(line["code"], 204, "{line}");
    assert!(line["duration"].is_u64(), "{line}");
    Ok(())
}

/// The log goes into a pipe that is not read, so it is full soon.
#[tokio::test]
async fn a_log_that_is_not_read_does_not_block_requests() -> Result<()> {
    const CALLS: usize = 12_000;
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("log");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status()?;
    anyhow::ensure!(made.success(), "mkfifo: {made}");
    let mut reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)?;
    let daprd = Daprd::builder()
        .flag("--enable-api-logging")
        .flag(&format!("--log-file={}", pipe.display()))
        .start()
        .await?;
    let memory = daprd.memory()?;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", daprd.http_port())).await?;
    let answers = async {
        let (read, mut write) = stream.split();
        let mut lines = tokio::io::BufReader::new(read).lines();
        for _ in 0..CALLS {
            write
                .write_all(b"GET /v1.0/healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                .await?;
            while !lines.next_line().await?.context("closed")?.is_empty() {}
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(outrider_harness::wait::LONG, answers).await??;
    let grown = daprd.memory()?.saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes more");
    // Now it is read, and has a line about the dropped ones.
    let found = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let mut piece = [0; 64 << 10];
        loop {
            let length = std::io::Read::read(&mut reader, &mut piece)?;
            text.extend_from_slice(&piece[..length]);
            if String::from_utf8_lossy(&text).contains("log lines were dropped") {
                return anyhow::Ok(());
            }
        }
    });
    tokio::time::timeout(outrider_harness::wait::LONG, found).await??
}
