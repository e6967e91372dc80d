//! A Kubernetes namespace for one test.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::cluster::Cluster;
use crate::run::Run as _;
use crate::wait::wait;

/// How much a namespace lets its pods do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PodSecurity {
    Restricted,
    Privileged,
}

/// Removed, with all that is in it, when dropped. A test that fails first shows what is in it.
pub struct Namespace {
    name: String,
    kubectl: Box<dyn Fn() -> Command + Send + Sync>,
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
        let (kubeconfig, program) = (
            cluster.kubeconfig().to_owned(),
            cluster.programs().join("kubectl"),
        );
        let namespace = Self {
            name,
            kubectl: Box::new(move || {
                let mut command = Command::new(&program);
                command.env("KUBECONFIG", &kubeconfig);
                command
            }),
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

    /// What somebody needs to see why a test failed.
    fn explain(&self) {
        let run = |arguments: &[&str]| {
            let output = (self.kubectl)()
                .args(arguments)
                .args(["-n", &self.name])
                .run();
            output.unwrap_or_else(|error| error.to_string())
        };
        eprintln!(
            "--- namespace {}\n{}",
            self.name,
            run(&["get", "all", "-o", "wide"])
        );
        eprintln!("{}", run(&["get", "events", "--sort-by=.lastTimestamp"]));
        for pod in run(&["get", "pods", "-o", "name"]).lines() {
            eprintln!(
                "--- {pod}\n{}",
                run(&["logs", pod, "--all-containers", "--prefix", "--tail=50"])
            );
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        let _ = (self.kubectl)()
            .args(["delete", "namespace", &self.name, "--wait=false"])
            .stdin(Stdio::null())
            .output();
    }
}
