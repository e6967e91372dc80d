//! A Kubernetes namespace for one test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::cluster::{Access, Cluster};
use crate::run::Run as _;
use crate::wait::wait;

/// How much a namespace lets its pods do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PodSecurity {
    Restricted,
    Privileged,
}

/// Enough of a cluster to ask it and to clean up, without borrowing it.
pub(crate) struct Kubectl {
    program: PathBuf,
    access: Access,
    cache: PathBuf,
}

impl Kubectl {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            program: cluster.programs().join("kubectl"),
            access: cluster.access.clone(),
            cache: cluster.kubectl_cache(),
        }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECACHEDIR", &self.cache);
        self.access.select(&mut command, "--context");
        command
    }

    /// What it printed, errors included.
    fn output(&self, namespace: &str, arguments: &[&str]) -> String {
        self.command()
            .args(arguments)
            .args(["-n", namespace])
            .run()
            .unwrap_or_else(|error| error.to_string())
    }

    pub fn explain(&self, namespace: &str) -> String {
        let mut text = format!("--- namespace {namespace}\n");
        text += &self.output(namespace, &["get", "all", "-o", "wide"]);
        text += &self.output(namespace, &["get", "events", "--sort-by=.lastTimestamp"]);
        for pod in self
            .output(namespace, &["get", "pods", "-o", "name"])
            .lines()
        {
            text += &format!("--- {pod}\n");
            text += &self.output(
                namespace,
                &["logs", pod, "--all-containers", "--prefix", "--tail=50"],
            );
        }
        text
    }
}

/// Removed, with all that is in it, when dropped. A test that panics first shows what is in it.
pub struct Namespace {
    name: String,
    kubectl: Kubectl,
}

impl Namespace {
    pub(crate) async fn create(
        cluster: &Cluster,
        prefix: &str,
        security: PodSecurity,
    ) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let level = match security {
            PodSecurity::Restricted => "restricted",
            PodSecurity::Privileged => "privileged",
        };
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        });
        cluster
            .kubectl_with_input(["create", "-f", "-"], &manifest.to_string())
            .await?;
        let namespace = Self {
            name,
            kubectl: Kubectl::new(cluster),
        };
        // Pods are refused until their account is there.
        wait(
            "the namespace's account",
            Duration::from_secs(30),
            async || {
                let account = ["get", "serviceaccount", "default", "-n", namespace.name()];
                cluster.kubectl(account).await.map(Some)
            },
        )
        .await?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.kubectl.explain(&self.name));
        }
        let delete = ["delete", "namespace", &self.name, "--wait=false"];
        self.kubectl.output(&self.name, &delete);
    }
}
