use std::ops::Deref;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{Process, binary, healthy};
use crate::{Kubernetes, Sentry, port};

/// The webhook, with an API server of its own.
#[derive(Debug)]
pub struct Injector {
    process: Process,
    port: u16,
    metrics_port: u16,
    _cluster: Kubernetes,
}

impl Injector {
    /// Its certificate's name.
    pub const NAME: &str = "dapr-sidecar-injector.default.svc";

    /// Starts it and waits until it is ready.
    pub async fn start(sentry: &Sentry) -> Result<Injector> {
        let cluster = Kubernetes::start().await?;
        cluster.put_at(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/dapr-sidecar-injector",
            serde_json::json!({"kind": "MutatingWebhookConfiguration"}),
        );
        let anchors = cluster.folder().join("ca.crt");
        std::fs::write(&anchors, sentry.anchors()?)?;
        let [port, healthz_port, metrics_port] = std::array::from_fn(|_| port::free());
        let mut command = Command::new(binary("injector")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            format!("--metrics-port={metrics_port}"),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            format!("--kubeconfig={}", cluster.kubeconfig().display()),
        ]);
        command
            .env("NAMESPACE", "default")
            .env("SIDECAR_IMAGE", "daprd")
            .env("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "localhost")
            .env(
                "DAPR_SENTRY_ADDRESS",
                format!("127.0.0.1:{}", sentry.port()),
            )
            .env("DAPR_TRUST_ANCHORS_FILE", anchors)
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true");
        let injector = Injector {
            process: Process::start("injector", &mut command)?,
            port,
            metrics_port,
            _cluster: cluster,
        };
        match healthy("injector", &injector.process, healthz_port).await {
            Ok(()) => Ok(injector),
            Err(error) => bail!("{error:#}\n{}", injector.lines().join("\n")),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }
}

impl Deref for Injector {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
