//! A network namespace with an address of its own, which can be cut off from all others.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;

use crate::sandbox::{self, BRIDGE, GATEWAY};

/// Where processes run: in a namespace, or beside this process.
#[derive(Debug)]
pub struct Pod {
    /// None beside this process.
    name: Option<String>,
    pub address: IpAddr,
}

impl Pod {
    /// Beside this process, where nothing can be cut off.
    pub fn local() -> Pod {
        Pod {
            name: None,
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Beside this process, at the address that other pods reach.
    pub fn gateway() -> Result<Pod> {
        let address = GATEWAY.parse()?;
        Ok(Pod {
            name: None,
            address,
        })
    }

    pub fn new() -> Result<Pod> {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        // The lowest number is that of the bridge.
        let address = Ipv4Addr::new(10, 213, high + 1, low);
        let (name, outside) = (format!("pod{number}"), format!("veth{number}"));
        sandbox::run(&format!("ip netns add {name}"))?;
        let pod = Pod {
            name: Some(name.clone()),
            address: address.into(),
        };
        for line in [
            format!("ip link add {outside} type veth peer name eth0 netns {name}"),
            format!("ip link set {outside} master {BRIDGE} up"),
            format!("ip -n {name} addr add {address}/16 dev eth0"),
            format!("ip -n {name} link set eth0 up"),
            format!("ip -n {name} link set lo up"),
        ] {
            sandbox::run(&line)?;
        }
        Ok(pod)
    }

    /// The words before a command that runs in here.
    pub fn enter(&self) -> Vec<String> {
        let Some(name) = &self.name else {
            return Vec::new();
        };
        ["ip", "netns", "exec", name].map(str::to_owned).to_vec()
    }

    /// What comes from others or goes to them is dropped without a word; probes from the
    /// machine itself still come through, as those of a kubelet do.
    pub fn cut(&self) -> Result<()> {
        self.rules("-A")
    }

    pub fn join(&self) -> Result<()> {
        self.rules("-D")
    }

    fn rules(&self, change: &str) -> Result<()> {
        let Some(name) = &self.name else {
            anyhow::bail!("there is no network to cut");
        };
        for rule in [
            format!("INPUT -i eth0 ! -s {GATEWAY} -j DROP"),
            format!("OUTPUT -o eth0 ! -d {GATEWAY} -j DROP"),
        ] {
            sandbox::run(&format!("ip netns exec {name} iptables {change} {rule}"))?;
        }
        Ok(())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Otherwise it ends with the sandbox.
            let _ = sandbox::run(&format!("ip netns delete {name}"));
        }
    }
}
