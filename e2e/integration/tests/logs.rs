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

#[tokio::test]
async fn lines_go_to_all_outputs_in_the_layout_that_is_wanted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, second) = (folder.path().join("a.log"), folder.path().join("b.log"));
    let daprd = Daprd::builder()
        .flag(&format!("--log-outputs=stdout,{}", first.display()))
        .flag(&format!("--log-file={}", second.display()))
        .flag("--log-timestamp-format=2006/01/02 at 15h")
        .start()
        .await?;
    let line = daprd.line("dapr initialized. Status: Running.").await?;
    let (time, _) = line.split_once(" level=").context("no level")?;
    assert!(
        time.starts_with("time=\"20") && time.ends_with("h\""),
        "{line}"
    );
    for path in [first, second] {
        outrider_harness::wait::until("the line is in the file", || async {
            let text = std::fs::read_to_string(&path).ok()?;
            text.contains(&line).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn full_log_files_are_put_aside_and_compressed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("daprd.log");
    // All but full already.
    std::fs::write(&path, "x".repeat((1 << 20) - 80) + "\n")?;
    let _daprd = Daprd::builder()
        .flag(&format!("--log-file={}", path.display()))
        .flag("--log-file-max-size=1")
        .flag("--log-file-max-backups=3")
        .flag("--log-file-compression")
        .start()
        .await?;
    outrider_harness::wait::until("a file is put aside", || async {
        let mut files = std::fs::read_dir(folder.path()).ok()?.flatten();
        let is_packed = |name: &str| name.starts_with("daprd-20") && name.ends_with(".log.gz");
        files.find(|file| file.file_name().to_str().is_some_and(is_packed))
    })
    .await?;
    let text = std::fs::read_to_string(&path)?;
    assert!(text.starts_with("time=") && text.len() < 1 << 20);
    Ok(())
}

#[tokio::test]
async fn the_level_changes_while_the_sidecar_runs() -> Result<()> {
    let daprd = Daprd::builder()
        .flag("--log-level=error")
        .component("mem", "state.in-memory")
        .start()
        .await?;
    let http = daprd.http();
    let set = async |level: &'static [u8]| {
        let key = "/v1.0/metadata/outriderLogLevel";
        http.request(http::Method::PUT, key, level).await
    };
    assert_eq!(set(b"loud").await?.status, 400);
    assert!(daprd.lines().is_empty(), "{:?}", daprd.lines());
    assert_eq!(set(b"info").await?.status, 204);
    daprd.line("Log level set to: info").await?;
    let shown = http.get("/v1.0/metadata").await?.json()?;
    assert_eq!(shown["extended"]["outriderLogLevel"], "info");
    let request = outrider_proto::runtime::v1::SetMetadataRequest {
        key: "outriderLogLevel".to_owned(),
        value: "ERROR".to_owned(),
    };
    let mut grpc = daprd.grpc().await?;
    grpc.set_metadata(request.clone()).await?;
    let wrong = outrider_proto::runtime::v1::SetMetadataRequest {
        value: String::new() + "quiet",
        ..request
    };
    let refused = grpc.set_metadata(wrong).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let number = daprd.lines().len();
    assert_eq!(set(b"error").await?.status, 204);
    assert_eq!(daprd.lines().len(), number);
    Ok(())
}

#[tokio::test]
async fn the_api_log_has_sizes_codes_and_traces() -> Result<()> {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let daprd = Daprd::builder()
        .flag("--enable-api-logging")
        .flag("--log-as-json")
        .start()
        .await?;
    let client = daprd.http().with("traceparent", PARENT);
    let answer = client.get("/v1.0/metadata").await?;
    let line = daprd.line("HTTP API Called").await?;
    let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    assert_eq!(line["size"], answer.body.len(), "{line}");
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line["span_id"], "00f067aa0ba902b7");
    let mut grpc = daprd.grpc().await?;
    grpc.get_metadata(outrider_proto::runtime::v1::GetMetadataRequest {})
        .await?;
    let line = daprd.line("gRPC API Called").await?;
    let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    assert_eq!(line["code"], 0, "{line}");
    assert_eq!(line["method"], "/dapr.proto.runtime.v1.Dapr/GetMetadata");
    assert!(line.get("trace_id").is_none(), "{line}");
    Ok(())
}
