//! Addresses that nothing else on this machine uses, and the link into the node.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::run::{Run as _, run_with_input};

/// One /16: the link to the machine, the pods and the services have a part each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Network {
    /// The second number of `10.x.0.0/16`.
    block: u8,
}

impl Network {
    /// The machine's end of the link.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block, 0, 1)
    }

    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block, 0, 2)
    }

    pub fn all(self) -> String {
        format!("10.{}.0.0/16", self.block)
    }

    pub fn pods(self) -> String {
        format!("10.{}.1.0/24", self.block)
    }

    pub fn services(self) -> String {
        format!("10.{}.2.0/24", self.block)
    }

    /// Where Kubernetes puts the Service of its own API: the first address of the range.
    pub fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block, 2, 1)
    }

    pub fn dns(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.block, 2, 10)
    }

    /// A free block; `seed` spreads clusters that boot at the same time.
    pub fn choose(seed: &str) -> Result<Self> {
        let mut used = Command::new("ip")
            .args(["-4", "-o", "address", "show"])
            .run()?;
        used += &Command::new("ip")
            .args(["-4", "route", "show", "table", "all"])
            .run()?;
        let first = seed
            .bytes()
            .fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        match free_block(&used, first) {
            Some(block) => Ok(Self { block }),
            None => {
                bail!("no free network 10.x.0.0/16 on this machine; end something that uses them")
            }
        }
    }

    /// Joins the machine and the node. The link ends with the node's namespaces.
    pub fn connect(self, link: &str, init: u32) -> Result<()> {
        let (host, node) = (self.host(), self.node());
        run_with_input(
            Command::new("ip").args(["-batch", "-"]),
            &format!(
                "link add {link} type veth peer name node0 netns {init}\n\
                 address add {host}/30 dev {link}\n\
                 link set {link} up\n"
            ),
        )?;
        // Nothing leaves the cluster's own addresses: what tries gets an error at once.
        run_with_input(
            Command::new("nsenter").args([
                "--target",
                &init.to_string(),
                "--net",
                "--",
                "ip",
                "-batch",
                "-",
            ]),
            &format!(
                "address add {node}/30 dev node0\n\
                 link set node0 up\n\
                 route add {all} via {host}\n\
                 route add unreachable default\n",
                all = self.all()
            ),
        )?;
        Command::new("ip")
            .args(["route", "add", &self.all(), "via", &node.to_string()])
            .run()?;
        Ok(())
    }
}

/// The first block from `first` on that no address or route in `used` overlaps.
fn free_block(used: &str, first: u8) -> Option<u8> {
    let taken: Vec<(u32, u32)> = used.split_whitespace().filter_map(range).collect();
    (0..=u8::MAX)
        .map(|step| first.wrapping_add(step))
        .find(|&block| {
            let low = u32::from(Ipv4Addr::new(10, block, 0, 0));
            let high = low | 0xffff;
            taken.iter().all(|&(from, to)| to < low || high < from)
        })
}

fn range(word: &str) -> Option<(u32, u32)> {
    let (address, bits) = word.split_once('/').unwrap_or((word, "32"));
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let bits: u32 = bits.parse().ok().filter(|&bits| bits <= 32)?;
    let mask = u32::MAX.checked_shr(bits).unwrap_or(0);
    Some((address & !mask, address | mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_in_use_is_passed_over() {
        let used =
            "2: eth0 inet 10.7.3.4/24 brd 10.7.3.255\n10.8.0.0/15 dev tun0\ndefault via 192.0.2.1";
        assert_eq!(free_block(used, 7), Some(10));
        assert_eq!(free_block("", 7), Some(7));
    }

    #[test]
    fn no_block_is_free_in_a_machine_that_routes_all_of_ten() {
        assert_eq!(free_block("10.0.0.0/8 via 192.0.2.1 dev eth0", 3), None);
    }
}
