use std::ops::Deref;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::json;

use crate::process::{Process, binary, healthy};
use crate::{Kubernetes, Sentry, port};

/// The operator, without its webhook and without Services for applications.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    port: u16,
    healthz_port: u16,
}

impl Operator {
    /// A name in its certificate.
    pub const NAME: &str = "dapr-webhook.default.svc";

    /// Starts it and waits until it is ready.
    pub async fn start(cluster: &Kubernetes, sentry: &Sentry) -> Result<Operator> {
        Operator::at(port::free(), cluster, sentry).await
    }

    /// The same at a port that was chosen before.
    pub async fn at(port: u16, cluster: &Kubernetes, sentry: &Sentry) -> Result<Operator> {
        let mtls = json!({
            "sentryAddress": format!("127.0.0.1:{}", sentry.port()),
            "controlPlaneTrustDomain": "localhost",
        });
        let configuration = json!({"kind": "Configuration", "spec": {"mtls": mtls}});
        cluster.put("configurations", "default", "daprsystem", configuration);
        let anchors = cluster.folder().join("ca.crt");
        std::fs::write(&anchors, sentry.anchors()?)?;
        let healthz_port = port::free();
        let mut command = Command::new(binary("operator")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            format!("--kubeconfig={}", cluster.kubeconfig().display()),
            format!("--trust-anchors-file={}", anchors.display()),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            "--enable-metrics=false".to_owned(),
            "--disable-leader-election".to_owned(),
            "--disable-service-reconciler".to_owned(),
        ]);
        command
            .env("NAMESPACE", "default")
            .env("ENABLE_WEBHOOKS", "false")
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true");
        let operator = Operator {
            process: Process::start("operator", &mut command)?,
            port,
            healthz_port,
        };
        match operator.ready().await {
            Ok(()) => Ok(operator),
            Err(error) => bail!("{error:#}\n{}", operator.lines().join("\n")),
        }
    }

    /// Waits until its health page says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        healthy("operator", &self.process, self.healthz_port).await
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Deref for Operator {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
