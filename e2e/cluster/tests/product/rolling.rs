//! Nothing is lost while the callee's pods are replaced under load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product::App;
use outrider_cluster::wait;
use serde_json::{Value, json};

use crate::Stage;

const PER_SECOND: u64 = 200;
const SECONDS: u64 = 60;
const TIMEOUT: Duration = Duration::from_secs(240);
/// Milliseconds of one order, with all its retries: less than the time limit of a
/// connection attempt to a pod that is gone.
const SLOWEST: u64 = 28_000;
const POLICY: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: persistent}
spec:
  policies:
    retries:
      persistent: {policy: constant, duration: 100ms, maxRetries: 100}
  targets:
    apps:
      orders: {retry: persistent}
";

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing() -> Result<()> {
    let Some(stage) = Stage::alone("rolling").await? else {
        return Ok(());
    };
    stage.apply(POLICY).await?;
    let orders = App {
        // Else the sidecar ends beside its application, which still needs it
        // for what it has begun.
        annotations: &[("dapr.io/block-shutdown-duration", "3s")],
        environment: &[("SUBSCRIBE", "news")],
        replicas: Some(2),
        ..App::default()
    };
    stage.app("orders", &orders).await?;
    stage.app("front", &App::default()).await?;
    stage.ready("orders").await?;
    stage.ready("front").await?;
    stage
        .until("front", "/buy?id=1&item=book", |a| a["stored"] == true)
        .await?;
    let namespace = stage.namespace.name();
    let plan = json!({
        "seller": "orders", "pubsub": "pubsub", "topic": "news",
        "per_second": PER_SECOND, "seconds": SECONDS,
    });
    stage
        .cluster
        .post(namespace, "front", "/load", &plan.to_string())
        .await?;
    let begun = Instant::now();
    let mut restarts = 0;
    while begun.elapsed() < Duration::from_secs(SECONDS - 10) {
        stage
            .cluster
            .kubectl(["rollout", "restart", "deploy/orders", "-n", namespace])
            .await?;
        stage
            .cluster
            .kubectl([
                "rollout",
                "status",
                "deploy/orders",
                "-n",
                namespace,
                "--timeout=120s",
            ])
            .await?;
        restarts += 1;
    }
    let report: Value = wait("the end of the load", TIMEOUT, async || {
        let text = stage.ask("front", "/load").await;
        let report: Value = serde_json::from_str(&text).context(text)?;
        ensure!(report["done"] == true, "it is still at {report}");
        Ok(Some(report))
    })
    .await?;
    println!("{restarts} restarts under load: {report}");
    ensure!(restarts >= 1, "the callee was never restarted");
    match check(&report) {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(stage.cluster.explain(namespace).await?)),
    }
}

fn check(report: &Value) -> Result<()> {
    for lost in ["failed", "lost_orders", "lost_events"] {
        ensure!(report[lost] == 0, "{lost}: {report}");
    }
    let ordered = report["ordered"].as_u64().unwrap_or_default();
    ensure!(
        ordered >= PER_SECOND * SECONDS * 9 / 10,
        "the load was not kept up: {report}"
    );
    // A call to a pod that is gone soon goes to another one.
    ensure!(report["slowest"].as_u64() <= Some(SLOWEST), "{report}");
    ensure!(
        report["published"].as_u64() >= Some(ordered / 20),
        "{report}"
    );
    Ok(())
}
