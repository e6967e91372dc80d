//! A cluster that is not ours is left as it was found.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use outrider_cluster::Cluster;
use outrider_cluster::product::{RELEASE, SYSTEM};

use crate::NAMESPACE;

/// What the chart makes outside of its namespace under a name that cannot be chosen.
const WEBHOOK: &str = "dapr-sidecar-injector";
const LIMIT: &str = "--timeout=120s";

/// What a cluster had before the demo.
pub struct Before {
    definitions: BTreeSet<String>,
}

impl Before {
    /// An error if the demo would change what is there.
    pub async fn look(cluster: &Cluster) -> Result<Self> {
        for (kind, name) in [
            ("namespace", SYSTEM),
            ("namespace", NAMESPACE),
            ("mutatingwebhookconfiguration", WEBHOOK),
        ] {
            let found = cluster
                .kubectl(["get", kind, name, "--ignore-not-found", "-o", "name"])
                .await?;
            ensure!(
                found.trim().is_empty(),
                "the cluster has a {kind} {name}, which the demo would change and remove: remove it yourself, or use another cluster"
            );
        }
        Ok(Self {
            definitions: definitions(cluster).await?,
        })
    }

    /// Removes what the demo brought.
    pub async fn restore(&self, cluster: &Cluster) -> Result<()> {
        delete_namespace(cluster, NAMESPACE).await?;
        cluster
            .helm([
                "uninstall",
                RELEASE,
                "-n",
                SYSTEM,
                "--wait",
                "--ignore-not-found",
            ])
            .await?;
        delete_namespace(cluster, SYSTEM).await?;
        // Helm never removes definitions.
        for definition in definitions(cluster).await?.difference(&self.definitions) {
            cluster.kubectl(["delete", definition, LIMIT]).await?;
        }
        Ok(())
    }
}

async fn definitions(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let all = cluster.kubectl(["get", "crd", "-o", "name"]).await?;
    let ours = all.lines().filter(|name| name.ends_with(".dapr.io"));
    Ok(ours.map(str::to_owned).collect())
}

async fn delete_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster
        .kubectl(["delete", "namespace", name, "--ignore-not-found", LIMIT])
        .await?;
    Ok(())
}
