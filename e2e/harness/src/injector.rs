use std::ops::Deref;
use std::process::Command;

use anyhow::{Result, bail};
use axum::Router;
use axum::routing::{get, patch};
use tempfile::TempDir;

use crate::process::{Process, binary, healthy};
use crate::{HttpApp, Sentry, port};

/// The webhook, with an API server that knows no more than it asks for.
#[derive(Debug)]
pub struct Injector {
    process: Process,
    port: u16,
    _folder: TempDir,
    _cluster: HttpApp,
}

impl Injector {
    /// Its certificate's name.
    pub const NAME: &str = "dapr-sidecar-injector.default.svc";

    /// Starts it and waits until it is ready.
    pub async fn start(sentry: &Sentry) -> Result<Injector> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        let answer = async |kind: &'static str| axum::Json(serde_json::json!({"kind": kind}));
        let configuration = "/apis/dapr.io/v1alpha1/namespaces/default/configurations/daprsystem";
        let webhook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/dapr-sidecar-injector";
        let router = Router::new()
            .route(configuration, get(move || answer("Configuration")))
            .route(
                webhook,
                patch(move || answer("MutatingWebhookConfiguration")),
            );
        let cluster = HttpApp::start(router).await?;
        let kubeconfig = serde_json::json!({
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", cluster.port())}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "users": [{"name": "c", "user": {}}],
            "current-context": "c",
        });
        let (port, healthz_port) = (port::free(), port::free());
        let mut command = Command::new(binary("injector")?);
        command.args([
            format!("--port={port}"),
            format!("--healthz-port={healthz_port}"),
            "--enable-metrics=false".to_owned(),
            "--listen-address=127.0.0.1".to_owned(),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            format!(
                "--kubeconfig={}",
                write("kubeconfig", kubeconfig.to_string())?.display()
            ),
        ]);
        command
            .env("NAMESPACE", "default")
            .env("SIDECAR_IMAGE", "daprd")
            .env("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "localhost")
            .env(
                "DAPR_SENTRY_ADDRESS",
                format!("127.0.0.1:{}", sentry.port()),
            )
            .env(
                "DAPR_TRUST_ANCHORS_FILE",
                write("ca.crt", sentry.anchors()?)?,
            )
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true");
        let injector = Injector {
            process: Process::start("injector", &mut command)?,
            port,
            _folder: folder,
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
}

impl Deref for Injector {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
