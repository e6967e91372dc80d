//! Bindings that another program serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use axum::Router;
use bytes::Bytes;
use http::StatusCode;
use outrider_harness::pluggable::Program;
use outrider_harness::{Daprd, HttpApp, Signal, wait};
use serde_json::json;
use tokio::sync::Notify;

use super::component;

const INPUT: &str = "{name: direction, value: input}";

#[tokio::test]
async fn operations_are_those_of_the_program() -> Result<()> {
    let program = Program::start("extra").await?;
    let daprd = Daprd::builder()
        .components(program.folder())
        .resource(&component("b", "bindings.extra", "{name: size, value: 7}"))
        .start()
        .await?;
    for service in ["InputBinding", "OutputBinding"] {
        daprd
            .line(&format!("pluggable component 'extra' was successfully registered for 'dapr.proto.components.v1.{service}'"))
            .await?;
    }
    let echo = json!({"operation": "echo", "data": "x", "metadata": {"a": "b"}});
    let answer = daprd.http().post("/v1.0/bindings/b", &echo).await?;
    assert_eq!((answer.status, answer.text().as_str()), (200, "\"x\""));
    assert_eq!(answer.header("metadata.operation"), Some("echo"));
    assert_eq!(answer.header("metadata.a"), Some("b"));
    let other = json!({"operation": "get"});
    let refused = daprd.http().post("/v1.0/bindings/b", &other).await?;
    let message = "error invoking output binding b: binding b does not support operation get. supported operations:create echo";
    assert_eq!(refused.error()?.1, message);
    let metadata = daprd.http().get("/v1.0/metadata").await?.json()?;
    assert_eq!(
        metadata["components"][0]["capabilities"],
        json!(["INPUT_BINDING", "OUTPUT_BINDING"])
    );
    let memory = program.memory();
    assert_eq!(memory.properties()["size"], "7");
    assert_eq!(memory.calls("Invoke"), ["b"]);
    assert_eq!(memory.calls("InputInit"), ["b"]);
    Ok(())
}

#[tokio::test]
async fn only_the_sides_that_are_wanted_are_connected() -> Result<()> {
    let program = Program::start("extra").await?;
    let _daprd = Daprd::builder()
        .components(program.folder())
        .resource(&component("b", "bindings.extra", INPUT))
        .start()
        .await?;
    let memory = program.memory();
    assert_eq!(memory.calls("InputInit"), ["b"]);
    assert!(memory.calls("OutputInit").is_empty());
    Ok(())
}

/// An application that answers when it is let.
struct App {
    http: HttpApp,
    entered: Arc<AtomicBool>,
    release: Arc<Notify>,
}

impl App {
    async fn start() -> Result<App> {
        let (entered, release) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let router = Router::new().fallback({
            let (entered, release) = (entered.clone(), release.clone());
            async move |uri: http::Uri, body: Bytes| {
                if uri.path() != "/b" {
                    return (StatusCode::NOT_FOUND, "");
                }
                if body == "wrong" {
                    return (StatusCode::INTERNAL_SERVER_ERROR, "no");
                }
                entered.store(true, Ordering::SeqCst);
                if body == "slow" {
                    release.notified().await;
                }
                (StatusCode::OK, "yes")
            }
        });
        let http = HttpApp::start(router).await?;
        Ok(App {
            http,
            entered,
            release,
        })
    }

    async fn has_entered(&self) -> Result<()> {
        wait::until("the application has the event", || async {
            self.entered.load(Ordering::SeqCst).then_some(())
        })
        .await
    }
}

async fn verdict(program: &Program, id: &str) -> Result<(String, String)> {
    wait::until(&format!("a verdict on {id}"), || async {
        let mut verdicts = program.memory().verdicts().into_iter();
        let verdict = verdicts.find(|verdict| verdict.message_id == id)?;
        let data = String::from_utf8_lossy(&verdict.response_data).into_owned();
        Some((data, verdict.response_error.unwrap_or_default().message))
    })
    .await
}

async fn reading(program: &Program, streams: usize) -> Result<()> {
    wait::until(&format!("{streams} streams read"), || async {
        (program.memory().readers() == streams).then_some(())
    })
    .await
}

async fn sidecar(program: &Program, app: &App, flags: &[&str]) -> Result<Daprd> {
    let builder = Daprd::builder()
        .components(program.folder())
        .app(&app.http)
        .resource(&component("b", "bindings.extra", INPUT));
    let builder = flags
        .iter()
        .fold(builder, |builder, flag| builder.flag(flag));
    let daprd = builder.start().await?;
    reading(program, 1).await?;
    Ok(daprd)
}

#[tokio::test]
async fn an_event_gets_its_verdict_when_the_application_has_answered() -> Result<()> {
    let program = Program::start("extra").await?;
    let app = App::start().await?;
    let _daprd = sidecar(&program, &app, &[]).await?;
    let memory = program.memory();
    memory.emit("1", "slow").await?;
    app.has_entered().await?;
    // Others do not wait for it.
    memory.emit("2", "quick").await?;
    memory.emit("3", "wrong").await?;
    let yes = ("yes".to_owned(), String::new());
    assert_eq!(verdict(&program, "2").await?, yes);
    let error = "fails to send binding event to http app channel, status code: 500 body: no";
    assert_eq!(
        verdict(&program, "3").await?,
        (String::new(), error.to_owned())
    );
    assert!(
        memory
            .verdicts()
            .iter()
            .all(|verdict| verdict.message_id != "1")
    );
    app.release.notify_one();
    assert_eq!(verdict(&program, "1").await?, yes);
    let seen = app.http.seen();
    let event = seen.iter().find(|seen| seen.body == "quick");
    let event = event.expect("was delivered");
    assert_eq!(event.header("kind"), Some("test"));
    Ok(())
}

#[tokio::test]
async fn reading_ends_after_the_last_verdict() -> Result<()> {
    for flag in [
        "--dapr-graceful-shutdown-seconds=20",
        "--dapr-block-shutdown-duration=60s",
    ] {
        let program = Program::start("extra").await?;
        let app = App::start().await?;
        let daprd = sidecar(&program, &app, &[flag]).await?;
        let memory = program.memory();
        memory.emit("1", "slow").await?;
        app.has_entered().await?;
        daprd.signal(Signal::INT)?;
        // It is still read from, but takes no event any more.
        wait::until("later events are refused", || async {
            memory.emit("2", "quick").await.ok()?;
            let verdicts = memory.verdicts();
            let mut refused = verdicts.iter().filter_map(|v| v.response_error.as_ref());
            let refused = refused.any(|error| error.message == "input binding is closed");
            refused.then_some(())
        })
        .await?;
        assert!(
            memory
                .verdicts()
                .iter()
                .all(|verdict| verdict.message_id != "1")
        );
        app.release.notify_one();
        assert_eq!(
            verdict(&program, "1").await?,
            ("yes".to_owned(), String::new())
        );
        reading(&program, 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_binding_that_is_removed_finishes_first() -> Result<()> {
    let program = Program::start("extra").await?;
    let app = App::start().await?;
    let daprd = Daprd::builder()
        .components(program.folder())
        .app(&app.http)
        .start()
        .await?;
    let file = daprd.resources().join("b.yaml");
    std::fs::write(&file, component("b", "bindings.extra", INPUT))?;
    reading(&program, 1).await?;
    program.memory().emit("1", "slow").await?;
    app.has_entered().await?;
    std::fs::remove_file(&file)?;
    wait::until("it is out of use", || async {
        let metadata = daprd.http().get("/v1.0/metadata").await.ok()?.json().ok()?;
        metadata.get("components").is_none().then_some(())
    })
    .await?;
    assert_eq!(program.memory().readers(), 1);
    app.release.notify_one();
    assert_eq!(
        verdict(&program, "1").await?,
        ("yes".to_owned(), String::new())
    );
    reading(&program, 0).await
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_opened_again() -> Result<()> {
    let mut program = Program::start("extra").await?;
    let app = App::start().await?;
    let _daprd = sidecar(&program, &app, &[]).await?;
    program.restart("extra").await?;
    reading(&program, 1).await?;
    program.memory().emit("1", "quick").await?;
    assert_eq!(
        verdict(&program, "1").await?,
        ("yes".to_owned(), String::new())
    );
    Ok(())
}
