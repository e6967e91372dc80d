//! The programs of the node and their configuration.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::image::NODE_PAUSE;
use crate::layout::Layout;
use crate::machine;
use crate::network::Network;
use crate::run::Run as _;
use crate::sandbox::Sandbox;

/// The node's name in Kubernetes.
pub(crate) const NODE: &str = "outrider";

/// Overlays can't lie on overlays, as in a container whose work folder is no volume.
pub(crate) fn snapshotter(layout: &Layout) -> Result<&'static str> {
    let kind = std::process::Command::new("stat")
        .args(["--file-system", "--format", "%T"])
        .arg(&layout.work)
        .run()?;
    Ok(if kind.trim() == "overlayfs" {
        "native"
    } else {
        "overlayfs"
    })
}

pub(crate) fn write_configuration(layout: &Layout, network: Network) -> Result<()> {
    for folder in ["cni", "plugins"] {
        fs::create_dir_all(layout.at(folder))?;
    }
    fs::write(layout.at("containerd.toml"), containerd(layout)?)?;
    fs::write(layout.at("resolv.conf"), "")?;
    write_json(&layout.at("cni/outrider.conflist"), &cni(layout, network))?;
    write_json(&layout.at("kubelet.json"), &kubelet(layout, network))?;
    write_json(&layout.at("proxy.json"), &proxy(layout, network))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    Ok(fs::write(path, serde_json::to_vec_pretty(value)?)?)
}

fn containerd(layout: &Layout) -> Result<String> {
    Ok(format!(
        r#"version = 2
root = "{root}"
state = "{state}"
temp = "{temp}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{NODE_PAUSE}"
# A root without CAP_SYS_RESOURCE can't lower the score of a process.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
# A profile would stay in the machine's kernel.
disable_apparmor = true
# As containerd 2 does by default.
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        root = layout.at("images").display(),
        state = layout.at("containers").display(),
        temp = layout.at("tmp").display(),
        socket = layout.containerd().display(),
        cni = layout.at("cni").display(),
        snapshotter = snapshotter(layout)?,
        plugins = machine::plugins().context("the network plugins are gone")?,
    ))
}

/// Each pod has a link of its own and all its traffic is routed, so that Services work without `br_netfilter`.
fn cni(layout: &Layout, network: Network) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": NODE,
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.at("addresses"),
                    "ranges": [[{"subnet": network.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(layout: &Layout, network: Network) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Only the cluster's own addresses lead here.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.identity),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "clusterDNS": [network.dns()],
        "clusterDomain": "cluster.local",
        "resolvConf": layout.at("resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd().display()),
        "podLogsDir": layout.at("log/pods"),
        "volumePluginDir": layout.at("plugins"),
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        // Images come from archives only: one that is removed can't be fetched again.
        "imageGCHighThresholdPercent": 100,
    })
}

fn proxy(layout: &Layout, network: Network) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": layout.at("proxy.kubeconfig")},
        "clusterCIDR": network.pods(),
        "hostnameOverride": NODE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        // The machine's own connection table is not the node's to size.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},
    })
}

/// Starts programs of the node.
pub(crate) struct Starter<'a> {
    pub layout: &'a Layout,
    pub network: Network,
    pub sandbox: &'a mut Sandbox,
}

impl Starter<'_> {
    fn start(&mut self, name: &'static str, program: &Path, arguments: &[OsString]) -> Result<()> {
        let mut command = self.sandbox.command(program);
        command
            .args(arguments)
            .env("HOME", &self.layout.work)
            .env("TMPDIR", self.layout.at("tmp"));
        self.sandbox.daemon(name, command)
    }

    fn kubernetes(
        &mut self,
        name: &'static str,
        flags: &[(&str, &dyn AsRef<std::ffi::OsStr>)],
    ) -> Result<()> {
        let mut arguments = vec![OsString::from(name)];
        for (flag, value) in flags {
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(value.as_ref());
            arguments.push(argument);
        }
        self.start(name, &self.layout.binary("node"), &arguments)
    }

    pub fn containerd(&mut self) -> Result<()> {
        let arguments = [
            "--config".into(),
            self.layout.at("containerd.toml").into_os_string(),
        ];
        let program = machine::program("containerd").context("containerd is gone")?;
        self.start("containerd", &program, &arguments)
    }

    pub fn control_plane(&mut self) -> Result<()> {
        let layout = self.layout;
        self.kubernetes(
            "etcd",
            &[
                ("data-dir", &layout.at("etcd")),
                ("listen-client-urls", &"http://127.0.0.1:2379"),
                ("advertise-client-urls", &"http://127.0.0.1:2379"),
                ("listen-peer-urls", &"http://127.0.0.1:2380"),
                // The data ends with the cluster.
                ("unsafe-no-fsync", &"true"),
            ],
        )?;
        self.kubernetes(
            "kube-apiserver",
            &[
                ("etcd-servers", &"http://127.0.0.1:2379"),
                ("advertise-address", &self.network.node().to_string()),
                ("service-cluster-ip-range", &self.network.services()),
                ("tls-cert-file", &layout.at("pki/apiserver.crt")),
                ("tls-private-key-file", &layout.at("pki/apiserver.key")),
                ("cert-dir", &layout.at("pki")),
                ("token-auth-file", &layout.at("pki/tokens.csv")),
                ("authorization-mode", &"Node,RBAC"),
                (
                    "service-account-issuer",
                    &"https://kubernetes.default.svc.cluster.local",
                ),
                (
                    "service-account-key-file",
                    &layout.at("pki/serviceaccounts.pub"),
                ),
                (
                    "service-account-signing-key-file",
                    &layout.at("pki/serviceaccounts.key"),
                ),
                // The machine doesn't know the node by its name.
                ("kubelet-preferred-address-types", &"InternalIP"),
                ("allow-privileged", &"true"),
                ("profiling", &"false"),
            ],
        )
    }

    /// What needs the API from its start.
    pub fn node(&mut self) -> Result<()> {
        let layout = self.layout;
        self.kubernetes(
            "kubelet",
            &[
                ("config", &layout.at("kubelet.json")),
                ("kubeconfig", &layout.at("kubelet.kubeconfig")),
                ("root-dir", &layout.at("kubelet")),
                ("cert-dir", &layout.at("kubelet/pki")),
                ("node-ip", &self.network.node().to_string()),
                ("hostname-override", &NODE),
            ],
        )?;
        self.kubernetes(
            "kube-controller-manager",
            &[
                ("kubeconfig", &layout.at("controllers.kubeconfig")),
                ("root-ca-file", &layout.at("pki/authority.crt")),
                (
                    "service-account-private-key-file",
                    &layout.at("pki/serviceaccounts.key"),
                ),
                ("cert-dir", &layout.at("pki/controllers")),
                ("flex-volume-plugin-dir", &layout.at("plugins")),
                ("bind-address", &"127.0.0.1"),
                ("leader-elect", &"false"),
                ("profiling", &"false"),
            ],
        )?;
        self.kubernetes(
            "kube-scheduler",
            &[
                ("kubeconfig", &layout.at("scheduler.kubeconfig")),
                ("cert-dir", &layout.at("pki/scheduler")),
                ("bind-address", &"127.0.0.1"),
                ("leader-elect", &"false"),
                ("profiling", &"false"),
            ],
        )?;
        self.kubernetes("kube-proxy", &[("config", &layout.at("proxy.json"))])
    }
}
