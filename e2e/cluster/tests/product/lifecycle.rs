//! From install to uninstall, on a cluster that no other test uses.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use outrider_cluster::product::{self, App, Product, RELEASE, SYSTEM};
use outrider_cluster::{Cluster, Namespace, Options, PodSecurity, may_boot, wait};

use crate::{DISKS, MACHINE, TIMEOUT, VALUES};

const DEFINITIONS: [&str; 7] = [
    "components.dapr.io",
    "configurations.dapr.io",
    "httpendpoints.dapr.io",
    "mcpservers.dapr.io",
    "resiliencies.dapr.io",
    "subscriptions.dapr.io",
    "workflowaccesspolicies.dapr.io",
];

#[tokio::test]
async fn the_chart_is_installed_upgraded_and_uninstalled() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let _machine = MACHINE.read().await;
    let cluster = Cluster::boot(Options::from_env()?.separate("outrider-lifecycle")).await?;
    let product = Product::built_beside()?;
    product.load(&cluster).await?;
    cluster.add_disks(DISKS).await?;
    product.install(&cluster, &VALUES).await?;
    restarts_are_none(&cluster).await?;

    let namespace = pods_before_the_control_plane_become_ready(&cluster, &product).await?;
    changed_values_and_a_new_tag_roll_over(&cluster, &product).await?;
    drop(namespace);
    uninstalling_leaves_the_definitions_only(&cluster).await?;
    cluster.down().await
}

async fn pods_before_the_control_plane_become_ready(
    cluster: &Cluster,
    product: &Product,
) -> Result<Namespace> {
    scale(cluster, 0).await?;
    let namespace = cluster.namespace("heal", PodSecurity::Restricted).await?;
    let name = namespace.name();
    let manifests = [
        product::component("statestore", "state.in-memory", &[]),
        product.app("orders", &App::default()),
    ];
    let words = ["apply", "-n", name, "-f", "-"];
    cluster
        .kubectl_with_input(words, &manifests.join("---\n"))
        .await?;
    wait(
        "a sidecar that waits for its identity",
        TIMEOUT,
        async || {
            let words = ["logs", "-n", name, "deploy/orders", "-c", "daprd"];
            let logs = cluster.kubectl(words).await?;
            Ok(logs
                .contains("failed to retrieve the initial identity")
                .then_some(()))
        },
    )
    .await?;
    scale(cluster, 1).await?;
    cluster.pods_ready(name, "app=orders", TIMEOUT * 2).await?;
    Ok(namespace)
}

async fn changed_values_and_a_new_tag_roll_over(
    cluster: &Cluster,
    product: &Product,
) -> Result<()> {
    let next = product.tagged("next");
    next.load(cluster).await?;
    let mut values = VALUES.to_vec();
    values.push("dapr_operator.logLevel=debug");
    next.install(cluster, &values).await?;
    let words = ["deployment", "dapr-operator", "-n", SYSTEM];
    let operator = cluster.get(words).await?;
    let container = &operator["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], next.image("operator"));
    let arguments = container["args"].to_string();
    assert!(arguments.contains("debug"), "{container}");
    Ok(())
}

async fn uninstalling_leaves_the_definitions_only(cluster: &Cluster) -> Result<()> {
    cluster
        .helm(["uninstall", RELEASE, "-n", SYSTEM, "--wait"])
        .await?;
    let kinds = "crd,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration";
    let left = cluster.kubectl(["get", kinds, "-o", "name"]).await?;
    let ours: BTreeSet<&str> = left
        .lines()
        .filter(|line| line.contains("dapr"))
        .filter_map(|line| line.rsplit('/').next())
        .collect();
    assert_eq!(ours, BTreeSet::from(DEFINITIONS));
    // Helm does not wait for pods that are about to end.
    wait("an empty namespace", TIMEOUT, async || {
        let words = ["get", "all", "-n", SYSTEM, "-o", "name"];
        let workloads = cluster.kubectl(words).await?;
        ensure!(workloads.trim().is_empty(), "{workloads}");
        Ok(Some(()))
    })
    .await
}

async fn restarts_are_none(cluster: &Cluster) -> Result<()> {
    let pods = cluster.get(["pods", "-n", SYSTEM]).await?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        for status in pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
        {
            assert_eq!(status["restartCount"], 0, "{}", pod["metadata"]["name"]);
        }
    }
    Ok(())
}

/// Sentry and operator; the injector stays, or nothing would be injected.
async fn scale(cluster: &Cluster, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    for name in ["deployment/dapr-sentry", "deployment/dapr-operator"] {
        cluster
            .kubectl(["scale", name, "-n", SYSTEM, &replicas])
            .await?;
    }
    let gone = replicas.ends_with("=0");
    wait("the control plane to follow", TIMEOUT, async || {
        let words = ["get", "pods", "-n", SYSTEM, "-o", "name"];
        let pods = cluster.kubectl(words).await?;
        let there = pods.contains("dapr-sentry") || pods.contains("dapr-operator");
        Ok((there != gone).then_some(()))
    })
    .await
}
