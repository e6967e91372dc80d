//! The jobs API, with and without a scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use outrider_harness::{Daprd, HttpApp, Scheduler, Signal, wait};
use serde_json::{Value, json};

/// An application whose handler of jobs answers with a status that can change.
async fn app(status: u16) -> Result<(HttpApp, Arc<AtomicU16>)> {
    let status = Arc::new(AtomicU16::new(status));
    let answer = status.clone();
    let handler = move || async move {
        StatusCode::from_u16(answer.load(Ordering::Relaxed)).unwrap_or_default()
    };
    let app = HttpApp::start(Router::new().route("/job/{name}", post(handler))).await?;
    Ok((app, status))
}

async fn with_scheduler(app: &HttpApp, scheduler: &Scheduler) -> Result<Daprd> {
    let address = format!("--scheduler-host-address=127.0.0.1:{}", scheduler.port());
    Daprd::builder().app(app).flag(&address).start().await
}

fn deliveries(app: &HttpApp, job: &str) -> usize {
    let path = format!("/job/{job}");
    app.seen().iter().filter(|seen| seen.target == path).count()
}

async fn until_delivered(app: &HttpApp, job: &str, times: usize) -> Result<()> {
    wait::until("the deliveries", || async {
        (deliveries(app, job) >= times).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_job_is_scheduled_found_delivered_and_gone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let (app, _) = app(200).await?;
    let daprd = with_scheduler(&app, &scheduler).await?;
    let http = daprd.http();

    let job = json!({
        "schedule": "@every 1h",
        "dueTime": "1h",
        "repeats": 3,
        "data": {"a": [1, "x"]},
        "failurePolicy": {"constant": {"interval": "2s", "maxRetries": 5}},
    });
    assert_eq!(http.post("/v1.0/jobs/later", &job).await?.status, 204);
    let again = http.post("/v1.0/jobs/later", &job).await?;
    let exists = "failed to schedule job due to: rpc error: code = AlreadyExists desc = job already exists: ";
    assert_eq!(again.status, 409);
    let (code, message) = again.error()?;
    assert_eq!(code, "DAPR_SCHEDULER_SCHEDULE_JOB");
    assert!(message.starts_with(exists), "{message}");
    let found = http.get("/v1.0/jobs/later").await?.json()?;
    let mut wanted = job.clone();
    wanted["name"] = json!("later");
    wanted["data"] = json!({
        "@type": "type.googleapis.com/google.protobuf.Value",
        "value": {"a": [1, "x"]},
    });
    assert_eq!(found, wanted);
    assert_eq!(http.delete("/v1.0/jobs/later").await?.status, 204);
    let gone = http.get("/v1.0/jobs/later").await?;
    assert_eq!(gone.status, 500);
    assert!(
        gone.error()?.1.contains("job not found"),
        "{:?}",
        gone.error()?
    );

    let due = json!({"dueTime": "0s", "data": {"a": 1}});
    assert_eq!(http.post("/v1.0/jobs/now", &due).await?.status, 204);
    until_delivered(&app, "now", 1).await?;
    let seen = app.seen();
    let event = seen.iter().find(|seen| seen.target == "/job/now");
    let event = event.context("no delivery")?;
    assert_eq!(event.header("content-type"), Some("application/json"));
    assert_eq!(
        serde_json::from_slice::<Value>(&event.body)?,
        json!({"a": 1})
    );
    wait::until("the end of the job", || async {
        let answer = http.get("/v1.0/jobs/now").await.ok()?;
        (answer.status == 500).then_some(())
    })
    .await?;
    let metadata = http.get("/v1.0/metadata").await?.json()?;
    let members = &metadata["scheduler"]["connected_addresses"];
    assert_eq!(members, &json!([format!("127.0.0.1:{}", scheduler.port())]));
    Ok(())
}

#[tokio::test]
async fn a_job_that_fails_comes_again_and_one_that_is_unknown_does_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let (app, status) = app(500).await?;
    let daprd = with_scheduler(&app, &scheduler).await?;
    let http = daprd.http();
    let job = json!({
        "dueTime": "0s",
        "failurePolicy": {"constant": {"interval": "0.1s", "maxRetries": 2}},
    });
    assert_eq!(http.post("/v1.0/jobs/fails", &job).await?.status, 204);
    until_delivered(&app, "fails", 3).await?;
    wait::until("the end of the job", || async {
        let answer = http.get("/v1.0/jobs/fails").await.ok()?;
        (answer.status == 500).then_some(())
    })
    .await?;
    assert_eq!(deliveries(&app, "fails"), 3);

    status.store(404, Ordering::Relaxed);
    assert_eq!(http.post("/v1.0/jobs/unknown", &job).await?.status, 204);
    wait::until("the end of the job", || async {
        let answer = http.get("/v1.0/jobs/unknown").await.ok()?;
        (answer.status == 500).then_some(())
    })
    .await?;
    assert_eq!(deliveries(&app, "unknown"), 1);
    Ok(())
}

#[tokio::test]
async fn jobs_outlive_a_scheduler_that_is_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let port = scheduler.port();
    let (app, _) = app(200).await?;
    let daprd = with_scheduler(&app, &scheduler).await?;
    let http = daprd.http();
    for index in 0..20 {
        let path = format!("/v1.0/jobs/kept-{index}");
        assert_eq!(
            http.post(&path, &json!({"dueTime": "2s"})).await?.status,
            204
        );
    }
    scheduler.signal(Signal::KILL)?;
    drop(scheduler);
    let _scheduler = Scheduler::on(port, folder.path()).await?;
    let begun = Instant::now();
    for index in 0..20 {
        until_delivered(&app, &format!("kept-{index}"), 1).await?;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    // A call that found no scheduler for a while is made once there is one.
    let path = "/v1.0/jobs/after";
    assert_eq!(
        http.post(path, &json!({"dueTime": "1h"})).await?.status,
        204
    );
    Ok(())
}

#[tokio::test]
async fn jobs_without_a_scheduler_say_so() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let http = daprd.http();
    for version in ["v1.0", "v1.0-alpha1"] {
        let path = format!("/{version}/jobs/nightly");
        let answer = http.post(&path, &json!({"schedule": "@daily"})).await?;
        assert_eq!(answer.status, 500);
        let (code, message) = answer.error()?;
        assert_eq!(code, "DAPR_SCHEDULER_SCHEDULE_JOB");
        assert_eq!(
            message,
            "failed to schedule job due to: scheduler clients are disabled"
        );
        for (answer, code) in [
            (http.get(&path).await?, "DAPR_SCHEDULER_GET_JOB"),
            (http.delete(&path).await?, "DAPR_SCHEDULER_DELETE_JOB"),
        ] {
            assert_eq!((answer.status, answer.error()?.0.as_str()), (500, code));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_job_that_cannot_be_is_refused_before_a_scheduler_is_asked() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let http = daprd.http();
    for (body, code) in [
        (json!({}), "DAPR_SCHEDULER_SCHEDULE_EMPTY"),
        (
            json!({"name": "x", "schedule": "@daily"}),
            "DAPR_SCHEDULER_JOB_NAME",
        ),
        (json!({"schedule": 5}), "ERR_MALFORMED_REQUEST"),
        (
            json!({"dueTime": "1s", "failurePolicy": {"constant": {"interval": "500ms"}}}),
            "ERR_MALFORMED_REQUEST",
        ),
    ] {
        let answer = http.post("/v1.0/jobs/nightly", &body).await?;
        assert_eq!(
            (answer.status, answer.error()?.0.as_str()),
            (400, code),
            "{body}"
        );
    }
    let answer = http
        .post("/v1.0/jobs/%20", &json!({"schedule": "@daily"}))
        .await?;
    assert_eq!(answer.error()?.0, "DAPR_SCHEDULER_JOB_NAME_EMPTY");
    Ok(())
}
