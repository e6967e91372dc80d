//! What the chart renders, for values that people have.

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product;
use outrider_cluster::{Cluster, may_boot};

/// A rendered object.
struct Object {
    kind: String,
    name: String,
    text: String,
}

async fn rendered(values: &[&str]) -> Result<Option<Vec<Object>>> {
    if !may_boot() {
        return Ok(None);
    }
    let cluster = Cluster::shared().await?;
    let chart = product::chart();
    let chart = chart.to_str().context("the chart's path is no text")?;
    let mut words = vec!["template", "dapr", chart, "--namespace", "dapr-system"];
    for value in values {
        words.extend(["--set", value]);
    }
    let text = cluster.helm(words).await?;
    let objects = text.split("\n---").filter_map(|text| {
        let find = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        Some(Object {
            kind: find("kind: ")?.to_owned(),
            name: find("  name: ")?.trim_matches('"').to_owned(),
            text: text.to_owned(),
        })
    });
    Ok(Some(objects.collect()))
}

fn named<'a>(objects: &'a [Object], kind: &str, name: &str) -> Result<&'a Object> {
    let is_it = |o: &&Object| o.kind == kind && o.name == name;
    objects
        .iter()
        .find(is_it)
        .with_context(|| format!("no {kind} {name}"))
}

const DEPLOYMENTS: [&str; 3] = ["dapr-operator", "dapr-sentry", "dapr-sidecar-injector"];

#[tokio::test]
async fn by_default_one_of_each() -> Result<()> {
    let Some(objects) = rendered(&[]).await? else {
        return Ok(());
    };
    for name in DEPLOYMENTS {
        let deployment = named(&objects, "Deployment", name)?;
        ensure!(deployment.text.contains("replicas: 1"), "{name}");
        ensure!(!deployment.text.contains("--log-as-json"), "{name}");
        ensure!(deployment.text.contains("runAsNonRoot: true"), "{name}");
    }
    named(&objects, "Configuration", "daprsystem")?;
    named(
        &objects,
        "MutatingWebhookConfiguration",
        "dapr-sidecar-injector",
    )?;
    ensure!(objects.iter().all(|o| o.kind != "PodDisruptionBudget"));
    ensure!(objects.iter().all(|o| o.kind != "StatefulSet"));
    Ok(())
}

#[tokio::test]
async fn high_availability() -> Result<()> {
    let values = ["global.ha.enabled=true", "global.logAsJson=true"];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    for name in DEPLOYMENTS {
        let deployment = named(&objects, "Deployment", name)?;
        ensure!(deployment.text.contains("replicas: 3"), "{name}");
        ensure!(deployment.text.contains("--log-as-json"), "{name}");
        ensure!(deployment.text.contains("podAntiAffinity"), "{name}");
    }
    let budgets = objects.iter().filter(|o| o.kind == "PodDisruptionBudget");
    assert_eq!(budgets.count(), 3);
    Ok(())
}

#[tokio::test]
async fn what_does_not_exist_yet_is_off_whatever_the_values_say() -> Result<()> {
    let values = [
        "global.scheduler.enabled=true",
        "global.actors.enabled=true",
        "dapr_placement.ha=true",
        "dapr_scheduler.cluster.storageSize=16Gi",
    ];
    let Some(objects) = rendered(&values).await? else {
        return Ok(());
    };
    ensure!(
        objects
            .iter()
            .all(|o| !o.name.contains("placement") && !o.name.contains("scheduler"))
    );
    let injector = named(&objects, "Deployment", "dapr-sidecar-injector")?;
    ensure!(
        !injector.text.contains("dapr-placement-server")
            && !injector.text.contains("dapr-scheduler-server"),
        "sidecars would be given addresses that nobody answers at:\n{}",
        injector.text
    );
    Ok(())
}

#[tokio::test]
async fn values_reach_what_they_are_for() -> Result<()> {
    let cases = [
        (
            "global.registry=my.registry/dapr",
            "Deployment",
            "my.registry/dapr/",
        ),
        ("global.tag=9.9.9", "Deployment", ":9.9.9"),
        (
            "global.imagePullPolicy=Never",
            "Deployment",
            "imagePullPolicy: Never",
        ),
        ("global.imagePullSecrets=pull", "Deployment", "name: pull"),
        (
            "global.mtls.enabled=false",
            "Configuration",
            "enabled: false",
        ),
        ("global.mtls.workloadCertTTL=1h", "Configuration", "1h"),
        (
            "global.mtls.controlPlaneTrustDomain=my.domain",
            "Configuration",
            "my.domain",
        ),
        ("dapr_sentry.logLevel=debug", "Deployment", "debug"),
        ("global.nodeSelector.disk=ssd", "Deployment", "disk: ssd"),
    ];
    for (value, kind, wanted) in cases {
        let Some(objects) = rendered(&[value]).await? else {
            return Ok(());
        };
        ensure!(
            objects
                .iter()
                .any(|o| o.kind == kind && o.text.contains(wanted)),
            "{value}: no {kind} with {wanted}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused_by_name() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let error = rendered(&["global.ha.podAntiAffinityPolicy=sometimes"]).await;
    let error = error.err().context("was rendered")?;
    ensure!(
        format!("{error:#}").contains("podAntiAffinityPolicy"),
        "{error:#}"
    );
    Ok(())
}
