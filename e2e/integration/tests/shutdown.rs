use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::routing::get;
use outrider_harness::http::Answer;
use outrider_harness::{Daprd, HttpApp, Signal, wait};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::test]
async fn a_signal_ends_the_process_with_success() -> Result<()> {
    for (signal, name) in [(Signal::INT, "interrupt"), (Signal::TERM, "terminated")] {
        let daprd = Daprd::builder()
            .component("store", "state.in-memory")
            .start()
            .await?;
        daprd.signal(signal)?;
        assert_eq!(daprd.end().await?.code(), Some(0), "{name}");
        daprd
            .line(&format!("Received signal '{name}'; beginning shutdown"))
            .await?;
        daprd.line("Daprd shutdown gracefully").await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_shutdown_api_ends_the_process() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    assert_eq!(
        daprd
            .http()
            .post("/v1.0/shutdown", &json!(null))
            .await?
            .status,
        204
    );
    assert_eq!(daprd.end().await?.code(), Some(0));
    Ok(())
}

/// A sidecar with a call to its application under way.
struct Busy {
    daprd: Daprd,
    call: JoinSet<Result<Answer>>,
    /// Lets the application answer.
    go: Arc<Notify>,
    _app: HttpApp,
}

async fn busy(grace: &str) -> Result<Busy> {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, going) = (Arc::clone(&entered), Arc::clone(&go));
    let router = axum::Router::new().route(
        "/slow",
        get(async move || {
            enter.notify_one();
            going.notified().await;
            "done"
        }),
    );
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder().app(&app).flag(grace).start().await?;
    let http = daprd.http();
    let mut call = JoinSet::new();
    call.spawn(async move { http.get("/v1.0/invoke/app/method/slow").await });
    timeout(wait::LONG, entered.notified()).await?;
    Ok(Busy {
        daprd,
        call,
        go,
        _app: app,
    })
}

#[tokio::test]
async fn a_call_in_flight_is_finished() -> Result<()> {
    let busy = busy("--dapr-graceful-shutdown-seconds=30").await?;
    let Busy {
        daprd,
        mut call,
        go,
        _app,
    } = busy;
    daprd.signal(Signal::TERM)?;
    daprd.line("beginning shutdown").await?;
    go.notify_one();
    let answer = call.join_next().await.context("no call")???;
    assert_eq!((answer.status, &*answer.text()), (200, "done"));
    assert_eq!(daprd.end().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cut() -> Result<()> {
    let busy = busy("--dapr-graceful-shutdown-seconds=1").await?;
    let Busy {
        daprd,
        mut call,
        go: _go,
        _app,
    } = busy;
    let asked = tokio::time::Instant::now();
    daprd.signal(Signal::TERM)?;
    assert_eq!(daprd.end().await?.code(), Some(1));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "took {:?}",
        asked.elapsed()
    );
    daprd
        .line("Graceful shutdown timeout exceeded, forcing shutdown")
        .await?;
    assert!(
        call.join_next().await.context("no call")??.is_err(),
        "the call was answered"
    );
    Ok(())
}

/// A connection that is closed by an answer loses no request; one that is
/// closed between two of them may (RFC 9112, section 9.6).
#[tokio::test]
async fn answers_during_the_shutdown_close_their_connection() -> Result<()> {
    let daprd = Daprd::builder()
        .flag("--dapr-block-shutdown-duration=2s")
        .start()
        .await?;
    let http = daprd.http();
    let before = http.get("/v1.0/metadata").await?;
    assert_eq!((before.status, before.header("connection")), (200, None));
    daprd.signal(Signal::TERM)?;
    daprd.line("Blocking graceful shutdown for 2s").await?;
    let after = http.get("/v1.0/metadata").await?;
    assert_eq!(
        (after.status, after.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(daprd.end().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn the_shutdown_does_not_wait_for_an_application_that_never_listened() -> Result<()> {
    let port = outrider_harness::port::free();
    let daprd = Daprd::builder()
        .flag(&format!("--app-port={port}"))
        .spawn()?;
    daprd.line("waiting on port").await?;
    assert_eq!(daprd.stop().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_hangup_restarts_the_runtime_in_the_same_process() -> Result<()> {
    // Else the new component may come by a live change, before the restart.
    let daprd = Daprd::builder()
        .config("features: [{name: HotReload, enabled: false}]")
        .start()
        .await?;
    let id = daprd.id();
    std::fs::write(
        daprd.resources().join("late.yaml"),
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: late}\nspec: {type: state.in-memory, version: v1}\n",
    )?;
    daprd.signal(Signal::HUP)?;
    daprd.line("Received signal 'hangup'; restarting").await?;
    let there = || async {
        let metadata = daprd.http().get("/v1.0/metadata").await.ok()?.json().ok()?;
        metadata["components"]
            .to_string()
            .contains("late")
            .then_some(())
    };
    wait::until("the new component is there", there).await?;
    daprd.ready().await?;
    assert_eq!(daprd.id(), id);
    assert_eq!(daprd.stop().await?, Some(0));
    Ok(())
}
