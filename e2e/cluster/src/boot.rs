//! From nothing to a node that runs pods.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::daemons::{self, NODE, Starter};
use crate::flags::Options;
use crate::image::{Image, NODE_PAUSE};
use crate::layout::Layout;
use crate::network::Network;
use crate::sandbox::{Process, Sandbox};
use crate::wait::wait;
use crate::{credentials, groups, machine, programs};

const DNS_IMAGE: &str = "outrider.local/coredns:1";
const DNS: &str = include_str!("coredns.yaml");

/// Written when the cluster is ready; gone with it.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub init: Process,
    pub network: Network,
}

impl State {
    /// That of a cluster which runs and is ready.
    pub fn read(layout: &Layout) -> Option<Self> {
        let text = std::fs::read(layout.state()).ok()?;
        let state: Self = serde_json::from_slice(&text).ok()?;
        state.init.lives().then_some(state)
    }

    fn write(&self, layout: &Layout) -> Result<()> {
        let new = layout.at("state.json.new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        Ok(std::fs::rename(new, layout.state())?)
    }
}

/// Says on standard error what happens, and when.
pub(crate) struct Progress {
    start: Instant,
    quiet: bool,
}

impl Progress {
    pub fn new(options: &Options) -> Self {
        Self {
            start: Instant::now(),
            quiet: options.quiet,
        }
    }

    pub fn say(&self, what: &str) {
        if !self.quiet {
            eprintln!(
                "cluster: {:5.1} s  {what}",
                self.start.elapsed().as_secs_f32()
            );
        }
    }
}

/// Builds and installs what is missing.
pub(crate) fn prepare(layout: &Layout, progress: &Progress) -> Result<()> {
    machine::check()?;
    machine::install(|what| progress.say(what))?;
    programs::build(&layout.cache, &layout.source(), |what| progress.say(what))
}

enum Found {
    Running(State),
    Started(Sandbox),
}

/// The running cluster of this layout if there is one, else a new one.
pub(crate) async fn boot(layout: Layout, options: &Options) -> Result<Cluster> {
    let progress = Progress::new(options);
    let (layout, progress) = tokio::task::spawn_blocking(move || {
        prepare(&layout, &progress).map(|()| (layout, progress))
    })
    .await??;
    let found = wait(
        "the end of another boot in the same folder",
        options.limit,
        async || {
            if let Some(state) = State::read(&layout) {
                return Ok(Some(Ok(Found::Running(state))));
            }
            let (own, pause) = (layout.clone(), layout.binary("pause"));
            // What this machine can't do does not pass: such an error is not waited on.
            let sandbox = tokio::task::spawn_blocking(move || Sandbox::start(&own, &pause)).await?;
            Ok(sandbox
                .map(|started| started.map(Found::Started))
                .transpose())
        },
    )
    .await??;
    let sandbox = match found {
        Found::Running(state) => {
            progress.say("using the cluster that already runs");
            return Ok(Cluster::attach(layout, state.network));
        }
        Found::Started(sandbox) => sandbox,
    };
    progress.say("namespaces are made");
    let network = Network::choose(&layout.identity)?;
    let mut cluster = Cluster::own(layout, network, sandbox);
    if let Err(error) = bring_up(&mut cluster, network, options.limit, &progress).await {
        let kept = keep_logs(&cluster.layout);
        return Err(match kept {
            Ok(folder) => error.context(format!(
                "the cluster did not boot; logs: {}",
                folder.display()
            )),
            Err(_) => error,
        });
    }
    Ok(cluster)
}

/// The work folder goes with the cluster; the logs of its programs stay.
fn keep_logs(layout: &Layout) -> Result<PathBuf> {
    let folder = layout.cache.join("failed-boot");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(layout.at("log"))? {
        let log = entry?.path();
        if let (true, Some(name)) = (log.is_file(), log.file_name()) {
            std::fs::copy(&log, folder.join(name))?;
        }
    }
    Ok(folder)
}

async fn bring_up(
    cluster: &mut Cluster,
    network: Network,
    limit: Duration,
    progress: &Progress,
) -> Result<()> {
    let layout = cluster.layout.clone();
    let sandbox = cluster.sandbox.as_mut().context("not the owner")?;
    let init = sandbox.init;
    network.connect(&layout.identity, init.id)?;
    groups::create(&layout.identity)?;
    credentials::write(&layout, network)?;
    daemons::write_configuration(&layout, network)?;
    let mut starter = Starter {
        layout: &layout,
        network,
        sandbox,
    };
    starter.control_plane()?;
    starter.containerd()?;
    wait_checked(cluster, limit, "containerd", async |cluster| {
        Ok(cluster.layout.containerd().exists())
    })
    .await?;
    let binary = |name: &str| layout.binary(name);
    cluster
        .load_image(&Image::new(NODE_PAUSE).program(binary("pause"), "/pause"))
        .await?;
    cluster
        .load_image(&Image::new(DNS_IMAGE).program(binary("coredns"), "/coredns"))
        .await?;
    progress.say("containerd has the node's images");
    wait_checked(cluster, limit, "the Kubernetes API", async |cluster| {
        Ok(cluster.kubectl(["get", "--raw", "/readyz"]).await.is_ok())
    })
    .await?;
    progress.say("the Kubernetes API is ready");
    let sandbox = cluster.sandbox.as_mut().context("not the owner")?;
    Starter {
        layout: &layout,
        network,
        sandbox,
    }
    .node()?;
    let manifest = DNS
        .replace("ADDRESS", &network.dns().to_string())
        .replace("IMAGE", DNS_IMAGE);
    cluster
        .kubectl_with_input(["create", "-f", "-"], &manifest)
        .await?;
    wait_checked(cluster, limit, "the node", async |cluster| {
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let status = cluster.kubectl(["get", "node", NODE, "-o", ready]).await;
        Ok(status.is_ok_and(|status| status == "True"))
    })
    .await?;
    progress.say("the node is ready");
    wait_checked(cluster, limit, "the cluster's DNS", async |cluster| {
        let ready = "jsonpath={.status.readyReplicas}";
        let replicas = cluster
            .kubectl([
                "-n",
                "kube-system",
                "get",
                "deployment",
                "coredns",
                "-o",
                ready,
            ])
            .await?;
        let account = cluster.kubectl(["get", "serviceaccount", "default"]).await;
        Ok(replicas == "1" && account.is_ok())
    })
    .await?;
    State { init, network }.write(&layout)?;
    progress.say("DNS answers; the cluster is ready");
    Ok(())
}

/// Waits, and fails at once when a program of the node has ended.
async fn wait_checked(
    cluster: &mut Cluster,
    limit: Duration,
    what: &str,
    probe: impl AsyncFn(&Cluster) -> Result<bool>,
) -> Result<()> {
    wait(what, limit, async || {
        if let Err(ended) = cluster.check() {
            return Ok(Some(Err(ended)));
        }
        Ok(probe(cluster).await?.then_some(Ok(())))
    })
    .await?
}
