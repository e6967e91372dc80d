//! The first is the sidecar, the second the scheduler.

use anyhow::{Result, ensure};
use axum::Router;
use axum::routing::post;
use outrider_harness::{HttpApp, wait};
use serde_json::json;

use crate::programs::Side;
use crate::report::Report;

async fn delivered(first: &Side, second: &Side) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = second.scheduler(folder.path()).await?;
    let app = HttpApp::start(Router::new().route("/job/{name}", post(async || ()))).await?;
    let address = format!("--scheduler-host-address=127.0.0.1:{}", scheduler.port);
    let sidecar = first
        .sidecar("shop")
        .app(&app)
        .flag(&address)
        .start()
        .await?;
    let http = sidecar.http();
    let job = json!({"schedule": "@every 1s", "repeats": 2, "data": {"a": 1}});
    let answer = http.post("/v1.0/jobs/often", &job).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    let answer = http
        .post("/v1.0/jobs/later", &json!({"dueTime": "1h", "data": "x"}))
        .await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    wait::until("both deliveries", || async {
        let came = app
            .seen()
            .into_iter()
            .filter(|seen| seen.target == "/job/often");
        (came.count() == 2).then_some(())
    })
    .await?;
    let found = http.get("/v1.0/jobs/later").await?;
    ensure!(
        found.status == 200 && found.json()?["dueTime"] == "1h",
        "{}",
        found.text()
    );
    let deleted = http.delete("/v1.0/jobs/later").await?;
    ensure!(
        deleted.status == 204,
        "{}: {}",
        deleted.status,
        deleted.text()
    );
    let gone = http.get("/v1.0/jobs/later").await?;
    ensure!(
        gone.status == 500,
        "a deleted job is answered with {}",
        gone.status
    );
    Ok(())
}

pub async fn all(report: &mut Report, first: &Side, second: &Side) {
    report
        .check(
            "jobs, sidecar and scheduler",
            first,
            second,
            delivered(first, second),
        )
        .await;
}
