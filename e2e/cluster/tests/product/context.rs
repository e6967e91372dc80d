//! The demo on a cluster that the user already has.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product::Product;
use outrider_cluster::{Cluster, Options, may_boot};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::MACHINE;

const CONTEXT: &str = "theirs";
const REGISTRY: &str = "registry.example/team";

/// Runs the demo with the user's configuration in `folder`.
async fn demo(folder: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(words)
        .env("KUBECONFIG", folder.join("config"))
        .env_remove("OUTRIDER_CLUSTER_KUBECONFIG")
        .kill_on_drop(true);
    Ok(command.output().await?)
}

async fn in_context(folder: &Path, context: &str) -> Result<Output> {
    let words = ["--context", context, "--registry", REGISTRY, "--exit"];
    demo(folder, &words).await
}

/// The user's configuration: two contexts, of which the current one leads nowhere.
fn configuration(cluster: &Cluster) -> Result<String> {
    let path = cluster.kubeconfig().context("no kubeconfig")?;
    let mut config: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut theirs = config["contexts"][0].clone();
    theirs["name"] = json!(CONTEXT);
    let nowhere = json!({"name": "nowhere", "context": {"cluster": "nowhere", "user": theirs["context"]["user"]}});
    config["contexts"] = json!([theirs, nowhere]);
    config["clusters"]
        .as_array_mut()
        .context("no clusters")?
        .push(json!({"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}));
    config["current-context"] = json!("nowhere");
    Ok(config.to_string())
}

/// What outlives namespaces, by kind and name.
async fn kept(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let kinds = "namespace,crd,clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingwebhookconfiguration,priorityclass,persistentvolume,apiservice";
    let all = cluster.kubectl(["get", kinds, "-o", "name"]).await?;
    Ok(all.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn the_demo_runs_in_a_cluster_of_the_user_and_leaves_nothing() -> Result<()> {
    if !may_boot() {
        return Ok(());
    }
    let _machine = MACHINE.read().await;
    let cluster = Cluster::boot(Options::from_env()?.separate("outrider-context")).await?;
    let folder = std::env::temp_dir().join(format!("outrider-context-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let shown = shows_and_leaves(&cluster, &folder).await;
    std::fs::remove_dir_all(&folder)?;
    cluster.down().await?;
    shown
}

async fn shows_and_leaves(cluster: &Cluster, folder: &Path) -> Result<()> {
    std::fs::write(folder.join("config"), configuration(cluster)?)?;

    // The user writes the images, and brings them to the cluster.
    let images = folder.join("images");
    let (binaries, images_text) = (
        Path::new(env!("CARGO_BIN_EXE_demo"))
            .parent()
            .context("no folder")?,
        images.to_str().context("no text")?,
    );
    Product::in_folder(binaries)?;
    let binaries = binaries.to_str().context("no text")?;
    let words = [
        "--registry",
        REGISTRY,
        "--save",
        images_text,
        "--binaries",
        binaries,
    ];
    let output = demo(folder, &words).await?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
    for name in ["daprd", "operator", "sentry", "injector", "shop"] {
        let push = format!("docker push {REGISTRY}/{name}:dev");
        ensure!(output_text.contains(&push), "{push}: {output_text}");
    }
    for archive in std::fs::read_dir(&images)? {
        cluster.load_archive(&archive?.path()).await?;
    }

    let before = kept(cluster).await?;
    let output = in_context(folder, CONTEXT).await?;
    let output_text = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{output_text}\n{wrong}");
    for step in [
        "reach your cluster",
        "helm install the control plane",
        r#""caller":"front""#,
        "both sidecars have certificates",
        "orders reads back",
        "remove all that the demo brought",
    ] {
        ensure!(
            output_text.contains(step),
            "nothing of {step}: {output_text}"
        );
    }
    ensure!(!output_text.contains("build the programs"), "{output_text}");
    let after = kept(cluster).await?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    let gone: Vec<_> = before.difference(&after).collect();
    ensure!(gone.is_empty(), "taken away: {gone:?}");

    // What is there already is not touched.
    cluster.kubectl(["create", "namespace", "shop"]).await?;
    let before = kept(cluster).await?;
    for (context, reason) in [
        (CONTEXT, "namespace shop"),
        ("nowhere", "does not answer"),
        ("missing", "missing"),
    ] {
        let output = in_context(folder, context).await?;
        let wrong = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(wrong.contains(reason), "{context}: {wrong}");
    }
    ensure!(kept(cluster).await? == before, "something has changed");
    Ok(())
}
