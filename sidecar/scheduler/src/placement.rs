//! What schedulers say about placement, beside their members.

use outrider_proto::scheduler::v1::Host;
use tokio::sync::watch;

use crate::Scheduler;

/// What is known of it now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// As last said; none before anything was.
    pub leader: Option<Leader>,
    /// Whether a scheduler can be reached, that is whether it may be said again.
    pub is_reachable: bool,
}

/// Who leads the placement that schedulers serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    At(String),
    /// Some could, and none does so far.
    Awaited,
    /// None could: all are too old, or leave it to the placement service.
    Absent,
}

impl Leader {
    /// As members announce it. Of no members nothing can be said.
    pub(crate) fn of(hosts: &[Host]) -> Self {
        let leads = hosts.iter().find(|host| host.leader);
        match leads {
            Some(host) => Self::At(host.address.clone()),
            None if hosts.is_empty() => Self::Awaited,
            None if hosts.iter().any(|host| host.scheduler_placement_enabled) => Self::Awaited,
            None => Self::Absent,
        }
    }
}

impl Scheduler {
    /// What is said about placement, and every change. None without schedulers.
    pub fn placement(&self) -> Option<watch::Receiver<Announced>> {
        self.is_enabled().then(|| self.0.announced.subscribe())
    }

    pub(crate) fn set_leader(&self, leader: Leader) {
        self.0.announced.send_if_modified(|announced| {
            let now = Announced {
                leader: Some(leader),
                is_reachable: true,
            };
            let changed = *announced != now;
            *announced = now;
            changed
        });
    }

    pub(crate) fn set_unreachable(&self) {
        self.0
            .announced
            .send_if_modified(|announced| std::mem::replace(&mut announced.is_reachable, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str, leader: bool, could: bool) -> Host {
        Host {
            address: address.to_owned(),
            leader,
            scheduler_placement_enabled: could,
        }
    }

    #[test]
    fn schedulers_lead_may_lead_or_never_will() {
        let at = |address: &str| Leader::At(address.to_owned());
        for (hosts, expected) in [
            (
                vec![host("a:1", false, true), host("b:1", true, true)],
                at("b:1"),
            ),
            (
                vec![host("a:1", false, false), host("b:1", false, true)],
                Leader::Awaited,
            ),
            (
                vec![host("a:1", false, false), host("b:1", false, false)],
                Leader::Absent,
            ),
            (Vec::new(), Leader::Awaited),
        ] {
            assert_eq!(Leader::of(&hosts), expected, "{hosts:?}");
        }
    }
}
