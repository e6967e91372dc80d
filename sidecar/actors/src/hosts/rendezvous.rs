//! The hosts of one type as schedulers have them: for each actor all hosts are
//! scored, and the highest score wins.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

use outrider_kit::rendezvous;

use super::{Addresses, Host};

/// From so many hosts on it is remembered which one an actor belongs to. A score
/// takes about 30 ns.
const MANY: usize = 64;
/// Actors that each thread remembers.
const SLOTS: usize = 4096;

#[derive(Debug)]
pub(super) struct Rendezvous {
    /// By their addresses: of equal scores the first one wins.
    hosts: Vec<Host>,
    /// Never that of others: what is remembered is of these hosts alone.
    number: u64,
}

impl PartialEq for Rendezvous {
    fn eq(&self, other: &Self) -> bool {
        self.hosts == other.hosts
    }
}

impl Eq for Rendezvous {}

/// Of an actor that was looked up.
#[derive(Default)]
struct Slot {
    /// Of the hosts; 0 of none.
    number: u64,
    id: String,
    index: usize,
}

thread_local! {
    /// By the hashes of ids; the latest of several stays.
    static LATEST: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

impl Rendezvous {
    pub fn new(addresses: &Addresses) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let hosts = addresses.iter().map(|(address, app_id)| Host {
            address: address.as_str().into(),
            app_id: app_id.as_str().into(),
        });
        Self {
            hosts: hosts.collect(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub fn owner(&self, id: &str) -> Option<&Host> {
        let index = match self.hosts.len() {
            0 | 1 => 0,
            2..MANY => self.best(id),
            _ => self.remembered(id),
        };
        self.hosts.get(index)
    }

    /// Where the host with the highest score is.
    fn best(&self, id: &str) -> usize {
        let mut best = (0, 0);
        for (index, host) in self.hosts.iter().enumerate() {
            let score = rendezvous::score(&host.address, id);
            if score > best.1 {
                best = (index, score);
            }
        }
        best.0
    }

    /// The same, as it was found before.
    fn remembered(&self, id: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let slot = hasher.finish() as usize % SLOTS;
        LATEST.with_borrow_mut(|slots| {
            if slots.is_empty() {
                slots.resize_with(SLOTS, Slot::default);
            }
            let slot = &mut slots[slot];
            if slot.number != self.number || slot.id != id {
                slot.index = self.best(id);
                slot.number = self.number;
                // Its room is used again.
                slot.id.clear();
                slot.id.push_str(id);
            }
            slot.index
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_host_has_an_actor_as_every_dapr_says() {
        let hosts = ["10.0.0.1:50002", "10.0.0.2:50002", "10.0.0.3:50002"];
        let addresses = hosts.map(|host| (host.to_owned(), "app".to_owned())).into();
        let hosts = Rendezvous::new(&addresses);
        for (id, owner) in [
            ("actor-1", "10.0.0.2:50002"),
            ("actor-2", "10.0.0.3:50002"),
            ("actor-3", "10.0.0.1:50002"),
            ("", "10.0.0.2:50002"),
            ("myactor||weird", "10.0.0.1:50002"),
        ] {
            assert_eq!(&*hosts.owner(id).unwrap().address, owner, "{id}");
        }
    }

    #[test]
    fn what_is_remembered_is_what_would_be_found() {
        let hosts = |count: usize| {
            let addresses = (0..count).map(|n| (format!("10.0.0.{n}:50002"), String::new()));
            Rendezvous::new(&addresses.collect())
        };
        let (some, more) = (hosts(MANY), hosts(MANY + 1));
        for round in 0..2 {
            for id in (0..3 * SLOTS).map(|id| id.to_string()) {
                for hosts in [&some, &more] {
                    let owner = hosts.owner(&id).unwrap();
                    assert_eq!(owner, &hosts.hosts[hosts.best(&id)], "{id}, round {round}");
                }
            }
        }
    }
}
