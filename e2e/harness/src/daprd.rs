use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use http::StatusCode;
use outrider_proto::internals::v1::service_invocation_client::ServiceInvocationClient;
use outrider_proto::runtime::v1::dapr_client::DaprClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::http::Client;
use crate::process::{Process, binary};
use crate::{GrpcApp, HttpApp, Kubernetes, Sentry, port, wait};

/// How a sidecar is started.
#[derive(Debug, Default)]
pub struct Builder {
    app_id: Option<String>,
    resources: Vec<String>,
    configs: Vec<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    names: Option<PathBuf>,
    mdns: bool,
    operator: bool,
    binary: Option<PathBuf>,
}

/// A running sidecar. As a [`Process`] it has output, signals and an end.
#[derive(Debug)]
pub struct Daprd {
    process: Process,
    folder: TempDir,
    app_id: String,
    http_port: u16,
    grpc_port: u16,
    internal_port: u16,
    metrics_port: u16,
    public_port: u16,
}

impl Builder {
    #[must_use]
    pub fn app_id(mut self, app_id: &str) -> Builder {
        self.app_id = Some(app_id.to_owned());
        self
    }

    /// A resource file, of any kind.
    #[must_use]
    pub fn resource(mut self, yaml: &str) -> Builder {
        self.resources.push(yaml.to_owned());
        self
    }

    /// A component without settings.
    #[must_use]
    pub fn component(self, name: &str, kind: &str) -> Builder {
        self.resource(&format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, version: v1}}\n"
        ))
    }

    /// The `spec` of a Configuration, as one line of YAML.
    #[must_use]
    pub fn config(mut self, spec: &str) -> Builder {
        self.configs.push(spec.to_owned());
        self
    }

    #[must_use]
    pub fn flag(mut self, flag: &str) -> Builder {
        self.flags.push(flag.to_owned());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another program than the one beside the test.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Builder {
        self.binary = Some(path.to_owned());
        self
    }

    #[must_use]
    pub fn app(self, app: &HttpApp) -> Builder {
        self.flag(&format!("--app-port={}", app.port()))
    }

    #[must_use]
    pub fn grpc_app(self, app: &GrpcApp) -> Builder {
        self.flag(&format!("--app-port={}", app.port()))
            .flag("--app-protocol=grpc")
    }

    /// Finds others through a database in this folder instead of the network.
    #[must_use]
    pub fn names(mut self, folder: &Path) -> Builder {
        self.names = Some(folder.to_owned());
        self
    }

    /// Finds others by multicast, which is what happens without configuration.
    #[must_use]
    pub fn mdns(mut self) -> Builder {
        self.mdns = true;
        self
    }

    /// Finds pluggable components in this folder.
    #[must_use]
    pub fn components(self, folder: &Path) -> Builder {
        let folder = folder.display().to_string();
        self.env("DAPR_COMPONENTS_SOCKETS_FOLDER", &folder)
    }

    pub fn sentry(self, sentry: &Sentry) -> Result<Builder> {
        Ok(self
            .flag("--enable-mtls")
            .flag(&format!("--sentry-address=127.0.0.1:{}", sentry.port()))
            .flag("--control-plane-trust-domain=localhost")
            .env("DAPR_TRUST_ANCHORS", &sentry.anchors()?)
            .env("NAMESPACE", "default"))
    }

    /// Takes its resources from the operator at this port, as in Kubernetes,
    /// and its identity from the sentry. Resources and configurations of the
    /// builder are then ignored.
    pub fn operator(mut self, port: u16, cluster: &Kubernetes, sentry: &Sentry) -> Result<Builder> {
        self.operator = true;
        let builder = self
            .flag("--mode=kubernetes")
            .flag(&format!("--control-plane-address=127.0.0.1:{port}"))
            .flag("--control-plane-namespace=default")
            .env("KUBECONFIG", &cluster.kubeconfig().display().to_string())
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true");
        builder.sentry(sentry)
    }

    /// Starts it without waiting for anything.
    pub fn spawn(self) -> Result<Daprd> {
        let folder = tempfile::tempdir()?;
        let resources = folder.path().join("resources");
        std::fs::create_dir(&resources)?;
        for (index, yaml) in self.resources.iter().enumerate() {
            std::fs::write(resources.join(format!("{index}.yaml")), yaml)?;
        }
        let app_id = self.app_id.unwrap_or_else(|| "app".to_owned());
        let [
            http_port,
            grpc_port,
            internal_port,
            metrics_port,
            public_port,
        ] = std::array::from_fn(|_| port::free());
        let program = match self.binary {
            Some(path) => path,
            None => binary("daprd")?,
        };
        let mut command = Command::new(program);
        command.args([
            format!("--app-id={app_id}"),
            format!("--dapr-http-port={http_port}"),
            format!("--dapr-grpc-port={grpc_port}"),
            format!("--dapr-internal-grpc-port={internal_port}"),
            format!("--dapr-public-port={public_port}"),
            format!("--metrics-port={metrics_port}"),
            format!("--resources-path={}", resources.display()),
            "--dapr-listen-addresses=127.0.0.1".to_owned(),
            "--dapr-internal-grpc-listen-address=127.0.0.1".to_owned(),
            "--dapr-public-listen-address=127.0.0.1".to_owned(),
            "--metrics-listen-address=127.0.0.1".to_owned(),
        ]);
        let mut configs = self.configs;
        let names = self.names.unwrap_or_else(|| folder.path().to_owned());
        // Some builds of Dapr have no SQLite in them.
        let multicast = std::env::var_os("OUTRIDER_NAMES").is_some_and(|names| names == "mdns");
        if !self.mdns && !multicast && !self.operator {
            let names = names.join("names.db");
            configs.push(format!(
                "nameResolution: {{component: sqlite, version: v1, configuration: {{connectionString: \"{}\"}}}}",
                names.display()
            ));
        }
        for (index, spec) in configs.iter().enumerate() {
            let path = folder.path().join(format!("config{index}.yaml"));
            let yaml = format!(
                "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: config}}\nspec:\n  {spec}\n"
            );
            std::fs::write(&path, yaml)?;
            command.arg(format!("--config={}", path.display()));
        }
        command.args(self.flags).envs(self.environment);
        Ok(Daprd {
            process: Process::start(&app_id, &mut command)?,
            folder,
            app_id,
            http_port,
            grpc_port,
            internal_port,
            metrics_port,
            public_port,
        })
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Result<Daprd> {
        let daprd = self.spawn()?;
        match daprd.ready().await {
            Ok(()) => Ok(daprd),
            Err(error) => bail!("{error:#}\n{}", daprd.lines().join("\n")),
        }
    }
}

impl Deref for Daprd {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Daprd {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Waits until the health page says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        let client = Client::new(self.public_port);
        let what = format!("{} is ready", self.app_id);
        let ready = || async {
            match self.status() {
                Some(status) => Some(Err(status)),
                None => client
                    .answers("/v1.0/healthz", StatusCode::NO_CONTENT)
                    .await
                    .then_some(Ok(())),
            }
        };
        match wait::until(&what, ready).await? {
            Ok(()) => Ok(()),
            Err(status) => bail!("{} ended instead of being ready: {status}", self.app_id),
        }
    }

    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    pub fn grpc_port(&self) -> u16 {
        self.grpc_port
    }

    pub fn internal_port(&self) -> u16 {
        self.internal_port
    }

    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// A client of the HTTP API.
    pub fn http(&self) -> Client {
        Client::new(self.http_port)
    }

    /// A client of the page with nothing but health and metadata.
    pub fn public(&self) -> Client {
        Client::new(self.public_port)
    }

    /// A connection to the gRPC API.
    pub async fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.grpc_port))?;
        endpoint
            .connect()
            .await
            .context("cannot connect to the gRPC API")
    }

    pub async fn grpc(&self) -> Result<DaprClient<Channel>> {
        Ok(DaprClient::new(self.channel().await?))
    }

    /// A client of the API between sidecars, without mTLS.
    pub async fn internal(&self) -> Result<ServiceInvocationClient<Channel>> {
        let address = format!("http://127.0.0.1:{}", self.internal_port);
        let channel = Endpoint::from_shared(address)?.connect().await;
        let channel = channel.context("cannot connect to the internal server")?;
        Ok(ServiceInvocationClient::new(channel))
    }

    /// The folder that its resource files are in.
    pub fn resources(&self) -> PathBuf {
        self.folder.path().join("resources")
    }
}
