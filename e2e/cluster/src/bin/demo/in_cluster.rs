//! The steps in a cluster: install, configure, deploy, call, look.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_cluster::product::{self, App, Product};
use outrider_cluster::{Cluster, wait};
use serde_json::Value;

use crate::{NAMESPACE, Steps};

const LIMIT: Duration = Duration::from_secs(90);
/// Nothing of the demo stays, so jobs need no disk, and one scheduler is enough.
const VALUES: [&str; 2] = [
    "dapr_scheduler.replicaCount=1",
    "dapr_scheduler.cluster.inMemoryStorage=true",
];

pub async fn show(cluster: &Cluster, product: &Product, steps: &mut Steps) -> Result<()> {
    steps
        .step("helm install the control plane", async || {
            product.install(cluster, &VALUES).await
        })
        .await?;
    steps
        .step(
            "kubectl apply a namespace with restricted Pod Security, Redis and Components",
            async || configure(cluster, product).await,
        )
        .await?;
    steps
        .step(
            "deploy two annotated applications; the injector adds their sidecars",
            async || deploy(cluster, product).await,
        )
        .await?;
    steps
        .step(
            "front calls orders through both sidecars, over mTLS",
            async || call(cluster).await,
        )
        .await?;
    steps
        .step("what orders saved is in Redis", async || {
            look(cluster).await
        })
        .await
}

async fn configure(cluster: &Cluster, product: &Product) -> Result<()> {
    let address = [("redisHost", "redis:6379"), ("redisPassword", "")];
    cluster.apply(&namespace()).await?;
    let manifests = [
        product::redis(&product.registry),
        product::component("statestore", "state.redis", &address),
        product::component("pubsub", "pubsub.redis", &address),
    ];
    apply(cluster, &manifests.join("---\n")).await?;
    cluster.pods_ready(NAMESPACE, "app=redis", LIMIT).await?;
    Ok(())
}

async fn deploy(cluster: &Cluster, product: &Product) -> Result<()> {
    let seller = App {
        environment: &[("SUBSCRIBE", "news")],
        ..App::default()
    };
    apply(cluster, &product.app("orders", &seller)).await?;
    apply(cluster, &product.app("front", &App::default())).await?;
    for app in ["app=orders", "app=front"] {
        cluster.pods_ready(NAMESPACE, app, LIMIT).await?;
    }
    let pods = cluster
        .kubectl(["get", "pods", "-n", NAMESPACE, "-o", "wide"])
        .await?;
    print!("{}", indented(&pods));
    Ok(())
}

async fn call(cluster: &Cluster) -> Result<()> {
    let answer = wait("an answer of orders", LIMIT, async || {
        let text = cluster
            .ask(NAMESPACE, "front", "/buy?id=1&item=book")
            .await?;
        Ok(Some(serde_json::from_str::<Value>(&text)?))
    })
    .await?;
    println!("    {answer}");
    ensure!(
        answer["caller"] == "front",
        "orders does not know who called: {answer}"
    );
    for app in ["front", "orders"] {
        let pod = format!("deploy/{app}");
        let logs = cluster
            .kubectl(["logs", "-n", NAMESPACE, &pod, "-c", "daprd"])
            .await?;
        ensure!(
            logs.contains("Security is initialized successfully"),
            "the sidecar of {app} has no identity"
        );
    }
    println!("    both sidecars have certificates of sentry, and accept nobody without one");
    Ok(())
}

async fn look(cluster: &Cluster) -> Result<()> {
    let state = cluster
        .ask(NAMESPACE, "front", "/orders/1")
        .await
        .unwrap_or_default();
    ensure!(
        !state.contains("book"),
        "state of orders is visible to front: {state}"
    );
    let state = cluster.ask(NAMESPACE, "orders", "/orders/1").await?;
    println!("    orders reads back {state}");
    ensure!(
        state.contains("book"),
        "the order is not in the store: {state}"
    );
    Ok(())
}

async fn apply(cluster: &Cluster, manifests: &str) -> Result<()> {
    cluster
        .kubectl_with_input(["apply", "-n", NAMESPACE, "-f", "-"], manifests)
        .await?;
    Ok(())
}

fn namespace() -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels: {{pod-security.kubernetes.io/enforce: restricted}}\n"
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
