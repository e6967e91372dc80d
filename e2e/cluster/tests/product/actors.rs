//! Actors stay whole while everything around them is restarted under load.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product::{self, App, SYSTEM};
use outrider_cluster::wait;
use serde_json::{Value, json};

use crate::Stage;

const ACTORS: u64 = 500;
const PER_SECOND: u64 = 60;
const SECONDS: u64 = 45;
/// Calls to a host that is gone, or to an actor that moves, are made again.
const RETRIES: u32 = 20;
const TIMEOUT: Duration = Duration::from_secs(180);

#[tokio::test]
async fn no_actor_is_lost_or_active_twice_while_all_is_restarted_under_load() -> Result<()> {
    let Some(stage) = Stage::alone("actors").await? else {
        return Ok(());
    };
    let store = [
        ("redisHost", "redis:6379"),
        ("redisPassword", ""),
        ("actorStateStore", "true"),
    ];
    let store = product::component("statestore", "state.redis", &store);
    stage.apply(&store).await?;
    let counters = App {
        program: Some("counter"),
        replicas: Some(3),
        ..App::default()
    };
    let client = App {
        program: Some("counter"),
        environment: &[("HOSTS", "false")],
        ..App::default()
    };
    stage.app("counters", &counters).await?;
    stage.app("client", &client).await?;
    stage.ready("counters").await?;
    stage.ready("client").await?;
    let plan = json!({
        "actors": ACTORS, "per_second": PER_SECOND, "seconds": SECONDS, "retries": RETRIES,
    })
    .to_string();
    let namespace = stage.namespace.name();
    let begun = stage
        .cluster
        .post(namespace, "client", "/load", &plan)
        .await?;
    ensure!(begun.contains("begun"), "the load did not begin: {begun}");
    for (what, of) in [
        ("deploy/counters", namespace),
        ("statefulset/dapr-placement-server", SYSTEM),
        ("statefulset/dapr-scheduler-server", SYSTEM),
    ] {
        let restart = ["rollout", "restart", what, "-n", of];
        stage.cluster.kubectl(restart).await?;
        let status = ["rollout", "status", what, "-n", of, "--timeout=120s"];
        stage.cluster.kubectl(status).await?;
    }
    let report: Value = wait("the end of the load", TIMEOUT, async || {
        let text = stage.ask("client", "/load").await;
        let report: Value = serde_json::from_str(&text).context(text)?;
        ensure!(report["done"] == true, "it is still at {report}");
        Ok(Some(report))
    })
    .await?;
    println!("restarts of applications, placement and scheduler: {report}");
    match check(&report) {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(stage.cluster.explain(namespace).await?)),
    }
}

fn check(report: &Value) -> Result<()> {
    for wrong in ["failed", "lost", "active_twice", "reminders_lost"] {
        ensure!(report[wrong] == 0, "{wrong}: {report}");
    }
    let calls = report["calls"].as_u64().unwrap_or_default();
    ensure!(
        calls >= PER_SECOND * SECONDS * 9 / 10,
        "the load was not kept up: {report}"
    );
    ensure!(report["reminders"].as_u64() >= Some(calls / 20), "{report}");
    Ok(())
}
