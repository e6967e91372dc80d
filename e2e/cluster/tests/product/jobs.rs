//! Jobs of three schedulers that share an etcd.

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product::{App, SYSTEM};
use serde_json::Value;

use crate::{Stage, TIMEOUT};

const SCHEDULERS: &str = "app=dapr-scheduler-server";

#[tokio::test]
async fn jobs_are_delivered_also_when_a_scheduler_is_killed() -> Result<()> {
    let Some(stage) = Stage::alone("jobs").await? else {
        return Ok(());
    };
    stage.app("orders", &App::default()).await?;
    stage.ready("orders").await?;
    comes_back(&stage, "first").await?;

    // Whatever part of the jobs it had, another one has it then.
    let pods = stage
        .cluster
        .get(["pods", "-n", SYSTEM, "-l", SCHEDULERS])
        .await?;
    let pods = pods["items"].as_array().context("no list")?;
    ensure!(pods.len() == 3, "{} schedulers", pods.len());
    let name = pods[0]["metadata"]["name"].as_str().context("no name")?;
    let words = [
        "delete",
        "pod",
        name,
        "-n",
        SYSTEM,
        "--force",
        "--grace-period=0",
    ];
    stage.cluster.kubectl(words).await?;
    for id in ["second", "third", "fourth"] {
        comes_back(&stage, id).await?;
    }
    stage
        .cluster
        .pods_ready(SYSTEM, SCHEDULERS, TIMEOUT)
        .await?;
    comes_back(&stage, "fifth").await
}

/// The application schedules a job, and gets it.
async fn comes_back(stage: &Stage, id: &str) -> Result<()> {
    let namespace = stage.namespace.name();
    let path = format!("/later/{id}");
    let said = stage.cluster.post(namespace, "orders", &path, "").await?;
    ensure!(said.contains("scheduled"), "{said}");
    let came = |all: &Value| {
        let jobs = all.as_array().into_iter().flatten();
        jobs.filter(|job| job["reminder"] == id).count() == 1
    };
    stage.until("orders", "/news", came).await?;
    Ok(())
}
