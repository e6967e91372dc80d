use anyhow::{Context, Result};
use outrider_harness::Daprd;
use serde_json::Value;

#[tokio::test]
async fn lines_of_text() -> Result<()> {
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
async fn lines_of_json() -> Result<()> {
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
async fn calls_are_logged_on_demand() -> Result<()> {
    let daprd = Daprd::builder()
        .flag("--enable-api-logging")
        .start()
        .await?;
    daprd.http().get("/v1.0/metadata").await?;
    let line = daprd.line("HTTP API Called").await?;
    assert!(line.contains("GET /v1.0/metadata"), "{line}");
    Ok(())
}
