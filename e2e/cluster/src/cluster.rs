//! A running cluster, and what its users do with it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::boot::{self, Progress, State};
use crate::daemons;
use crate::flags::Options;
use crate::image::Image;
use crate::layout::Layout;
use crate::namespace::{Kubectl, Namespace, PodSecurity};
use crate::network::Network;
use crate::run::{Run as _, run_with_input};
use crate::sandbox::Sandbox;
use crate::wait::wait;

/// How kubectl and helm find a cluster.
#[derive(Clone)]
pub(crate) enum Access {
    Kubeconfig(PathBuf),
    /// A name in the user's own configuration, wherever that is.
    Context(String),
}

impl Access {
    /// Makes a command use this cluster; `flag` is the program's own for a context.
    pub fn select(&self, command: &mut Command, flag: &str) {
        match self {
            Self::Kubeconfig(path) => command.env("KUBECONFIG", path),
            Self::Context(name) => command.arg(flag).arg(name),
        };
    }
}

/// A Kubernetes that answers. It ends with this value, or with the process, if this process booted it.
pub struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) access: Access,
    /// Unknown for a cluster that only a kubeconfig leads to.
    network: Option<Network>,
    pub(crate) sandbox: Option<Sandbox>,
}

impl Cluster {
    /// The cluster of `OUTRIDER_CLUSTER_KUBECONFIG`, else the one that runs in the work folder, else a new one.
    pub async fn boot(options: Options) -> Result<Self> {
        let layout = Layout::new(&options.work, &options.cache)?;
        let Some(kubeconfig) = options.kubeconfig.clone() else {
            return boot::boot(layout, &options).await;
        };
        ensure!(
            kubeconfig.is_file(),
            "OUTRIDER_CLUSTER_KUBECONFIG names {}, which is no file; correct or unset it",
            kubeconfig.display()
        );
        if let Some(folder) = kubeconfig.parent()
            && let Ok(layout) = Layout::new(folder, &options.cache)
            && let Some(state) = State::read(&layout)
        {
            return Ok(Self::attach(layout, state.network));
        }
        Self::foreign(layout, &options, Access::Kubeconfig(kubeconfig))
    }

    /// A cluster of the user's, by the name of a context of theirs.
    pub async fn of_context(options: Options, name: &str) -> Result<Self> {
        let layout = Layout::new(&options.work, &options.cache)?;
        let cluster = Self::foreign(layout, &options, Access::Context(name.to_owned()))?;
        cluster
            .kubectl(["get", "--raw", "/version"])
            .await
            .with_context(|| format!("the cluster of the context {name} does not answer"))?;
        Ok(cluster)
    }

    fn foreign(layout: Layout, options: &Options, access: Access) -> Result<Self> {
        let progress = Progress::new(options);
        crate::programs::build(&layout.cache, &layout.source(), |what| progress.say(what))?;
        Ok(Self {
            layout,
            access,
            network: None,
            sandbox: None,
        })
    }

    /// One cluster for all tests of a process; it ends with the process if it was booted here.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED
            .get_or_try_init(async || Self::boot(Options::from_env()?).await)
            .await
    }

    pub(crate) fn attach(layout: Layout, network: Network) -> Self {
        Self {
            access: Access::Kubeconfig(layout.kubeconfig()),
            layout,
            network: Some(network),
            sandbox: None,
        }
    }

    pub(crate) fn own(layout: Layout, network: Network, sandbox: Sandbox) -> Self {
        Self {
            sandbox: Some(sandbox),
            ..Self::attach(layout, network)
        }
    }

    /// Whether its node is this machine.
    pub(crate) fn is_embedded(&self) -> bool {
        self.network.is_some()
    }

    /// True if it ends with this value.
    pub fn is_owned(&self) -> bool {
        self.sandbox.is_some()
    }

    /// An error when a program of an owned cluster has ended.
    pub fn check(&mut self) -> Result<()> {
        self.sandbox.as_mut().map_or(Ok(()), Sandbox::check)
    }

    /// Ends an owned cluster and returns when nothing of it is left; another's is left alone.
    pub async fn down(self) -> Result<()> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }

    /// None for a context of the user's.
    pub fn kubeconfig(&self) -> Option<&Path> {
        match &self.access {
            Access::Kubeconfig(path) => Some(path),
            Access::Context(_) => None,
        }
    }

    /// The folder with `kubectl` and `helm`, for a PATH.
    pub fn programs(&self) -> PathBuf {
        self.layout.cache.join("bin")
    }

    /// An address of this machine that pods and the API server reach, for a webhook outside of the cluster.
    pub fn host_address(&self) -> Result<Ipv4Addr> {
        self.network().map(Network::host)
    }

    /// The node's address, for node ports. Addresses of Services and pods are reached from this machine too.
    pub fn node_address(&self) -> Result<Ipv4Addr> {
        self.network().map(Network::node)
    }

    fn network(&self) -> Result<Network> {
        self.network
            .context("the addresses of a cluster that was not booted by this program are not known")
    }

    /// What kubectl remembers of the API must not outlive it.
    pub(crate) fn kubectl_cache(&self) -> PathBuf {
        match self.network {
            Some(_) => self.layout.at("kubectl-cache"),
            None => self.layout.cache.join("tools/kubectl"),
        }
    }

    pub(crate) fn kubectl_command(&self) -> Command {
        Kubectl::new(self).command()
    }

    pub(crate) fn helm_command(&self) -> Command {
        let mut command = Command::new(self.layout.binary("helm"));
        let folder = self.layout.cache.join("tools");
        command
            .env("HELM_CACHE_HOME", folder.join("cache"))
            .env("HELM_CONFIG_HOME", folder.join("config"))
            .env("HELM_DATA_HOME", folder.join("data"));
        self.access.select(&mut command, "--kube-context");
        command
    }

    /// Runs kubectl; what it printed, or an error with its complaint.
    pub async fn kubectl<I>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = self.kubectl_command();
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.run()).await?
    }

    pub async fn kubectl_with_input<I>(&self, arguments: I, input: &str) -> Result<String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = self.kubectl_command();
        command.args(arguments);
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || run_with_input(&mut command, &input)).await?
    }

    /// `kubectl apply` of manifests in YAML or JSON.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl_with_input(["apply", "-f", "-"], manifests)
            .await?;
        Ok(())
    }

    /// `kubectl get` as JSON.
    pub async fn get<I>(&self, arguments: I) -> Result<Value>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = self.kubectl_command();
        command.arg("get").args(arguments).args(["-o", "json"]);
        let text = tokio::task::spawn_blocking(move || command.run()).await??;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs helm; what it printed, or an error with its complaint.
    pub async fn helm<I>(&self, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = self.helm_command();
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.run()).await?
    }

    /// A new namespace with a name of its own that starts with `prefix`; removed with the value.
    pub async fn namespace(&self, prefix: &str, security: PodSecurity) -> Result<Namespace> {
        Namespace::create(self, prefix, security).await
    }

    /// Puts an image into the cluster unless it is there; returns its digest.
    pub async fn load_image(&self, image: &Image) -> Result<String> {
        let image = image.clone();
        let layout = self.container_runtime()?.clone();
        tokio::task::spawn_blocking(move || {
            let archive = image.build()?;
            let digest = archive.digest();
            let mut list = containers(&layout, &["images", "ls"]);
            let found = list.arg(format!("name=={}", archive.reference())).run()?;
            if !found.contains(&digest) {
                import(&layout, |to| archive.write(to))?;
            }
            Ok(digest)
        })
        .await?
    }

    /// Puts an image archive, of this crate or of `docker save`, into the cluster.
    pub async fn load_archive(&self, archive: &Path) -> Result<()> {
        let mut file = std::fs::File::open(archive)
            .with_context(|| format!("can't open the archive {}", archive.display()))?;
        let layout = self.container_runtime()?.clone();
        tokio::task::spawn_blocking(move || {
            import(&layout, |to| {
                std::io::copy(&mut file, to)?;
                Ok(())
            })
        })
        .await?
    }

    fn container_runtime(&self) -> Result<&Layout> {
        ensure!(
            self.network.is_some(),
            "images can't be put into a cluster that was not booted by this program; load them with its own tools"
        );
        Ok(&self.layout)
    }

    /// Waits until every pod that `selector` chooses is ready, and there is one; their names.
    pub async fn pods_ready(
        &self,
        namespace: &str,
        selector: &str,
        limit: Duration,
    ) -> Result<Vec<String>> {
        let what = format!("pods {selector} of {namespace}");
        let ready = wait(&what, limit, async || {
            let pods = self.get(["pods", "-n", namespace, "-l", selector]).await?;
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            let names = pods
                .iter()
                .filter_map(|pod| pod["metadata"]["name"].as_str());
            let ready = !pods.is_empty() && pods.iter().all(is_ready);
            Ok(ready.then(|| names.map(str::to_owned).collect()))
        })
        .await;
        match ready {
            Ok(names) => Ok(names),
            Err(error) => Err(error.context(self.explain(namespace).await?)),
        }
    }

    /// What is in a namespace, what happened there and what its pods printed: for a person who looks for a fault.
    pub async fn explain(&self, namespace: &str) -> Result<String> {
        let kubectl = Kubectl::new(self);
        let namespace = namespace.to_owned();
        Ok(tokio::task::spawn_blocking(move || kubectl.explain(&namespace)).await?)
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True")
        })
}

fn containers(layout: &Layout, arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(layout.containerd())
        .args(["--namespace", "k8s.io"])
        .args(arguments);
    command
}

fn import(
    layout: &Layout,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<()>,
) -> Result<()> {
    let mut command = containers(layout, &["images", "import", "--snapshotter"]);
    let mut child = command
        .args([daemons::snapshotter(layout)?, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't start ctr; install containerd")?;
    let written = match child.stdin.take() {
        Some(mut stdin) => write(&mut stdin).and_then(|()| Ok(stdin.flush()?)),
        None => Ok(()),
    };
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "containerd refused the image: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    written
}
