//! Which of the hosts of a type has an actor. Every sidecar computes the same
//! from what placement says, which is the hosts only.

mod rendezvous;
mod ring;

use std::collections::BTreeMap;
use std::sync::Arc;

use rendezvous::Rendezvous;
use ring::Ring;

/// A sidecar that hosts actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where its internal API is, `host:port`.
    pub address: Arc<str>,
    pub app_id: Arc<str>,
}

/// Of the hosts of one type, their addresses with their app ids.
pub type Addresses = BTreeMap<String, String>;

/// Where the actors of all types are. Clones share the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    types: BTreeMap<Arc<str>, Arc<Hosts>>,
}

/// The hosts of one type, and what says which of them has an actor.
#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    /// As the placement service has it.
    Ring(Ring),
    /// As schedulers have it.
    Rendezvous(Rendezvous),
}

impl Tables {
    /// Every host has `points` places on the ring of each of its types.
    pub fn rings(types: BTreeMap<Arc<str>, Addresses>, points: u32) -> Self {
        let rings = ring::rings(types, points).into_iter();
        let types = rings.map(|(kind, ring)| (kind, Arc::new(Hosts::Ring(ring))));
        Self {
            types: types.collect(),
        }
    }

    /// These tables with some types replaced; a type without hosts is removed.
    #[must_use]
    pub fn with(&self, changes: BTreeMap<Arc<str>, Addresses>) -> Self {
        let mut types = self.types.clone();
        // Types often have the same hosts.
        let mut built: BTreeMap<Addresses, Arc<Hosts>> = BTreeMap::new();
        for (kind, addresses) in changes {
            if addresses.is_empty() {
                types.remove(&kind);
                continue;
            }
            let hosts = built.entry(addresses).or_insert_with_key(|addresses| {
                Arc::new(Hosts::Rendezvous(Rendezvous::new(addresses)))
            });
            match types.get(&kind) {
                // One that has not changed is the same one.
                Some(known) if known == hosts => {}
                _ => drop(types.insert(kind, hosts.clone())),
            }
        }
        Self { types }
    }

    /// These tables with some types as others have them.
    #[must_use]
    pub fn with_types_of<'a>(
        &self,
        other: &Self,
        kinds: impl IntoIterator<Item = &'a Arc<str>>,
    ) -> Self {
        let mut types = self.types.clone();
        for kind in kinds {
            match other.types.get(kind) {
                Some(hosts) => drop(types.insert(kind.clone(), hosts.clone())),
                None => drop(types.remove(kind)),
            }
        }
        Self { types }
    }

    /// The host that an actor belongs to; none hosts the type otherwise.
    pub fn owner(&self, kind: &str, id: &str) -> Option<&Host> {
        match &**self.types.get(kind)? {
            Hosts::Ring(ring) => ring.owner(id),
            Hosts::Rendezvous(rendezvous) => rendezvous.owner(id),
        }
    }

    /// Whether anybody hosts the type.
    pub fn has(&self, kind: &str) -> bool {
        self.types.contains_key(kind)
    }

    /// Whether a type has the same hosts in other tables. Says no too often
    /// where they come from different messages.
    pub fn shares(&self, other: &Self, kind: &str) -> bool {
        match (self.types.get(kind), other.types.get(kind)) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether the host has any type.
    pub fn is_host(&self, address: &str) -> bool {
        let mut types = self.types.values();
        types.any(|hosts| {
            let mut hosts = match &**hosts {
                Hosts::Ring(ring) => ring.hosts().iter(),
                Hosts::Rendezvous(rendezvous) => rendezvous.hosts().iter(),
            };
            hosts.any(|host| &*host.address == address)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(hosts: &[&str]) -> Addresses {
        let app_id = || "app".to_owned();
        let hosts = hosts.iter().map(|host| ((*host).to_owned(), app_id()));
        hosts.collect()
    }

    fn rings(hosts_of: &[&str]) -> Tables {
        Tables::rings([("t".into(), hosts(hosts_of))].into(), 100)
    }

    fn scored(hosts_of: &[&str]) -> Tables {
        Tables::default().with([("t".into(), hosts(hosts_of))].into())
    }

    #[test]
    fn a_type_without_hosts_has_no_owner() {
        for tables in [rings, scored] {
            assert_eq!(tables(&[]).owner("t", "1"), None);
            assert!(!tables(&[]).has("t"));
            assert_eq!(tables(&["a:1"]).owner("other", "1"), None);
            assert_eq!(&*tables(&["a:1"]).owner("t", "1").unwrap().address, "a:1");
            assert!(tables(&["a:1"]).is_host("a:1") && !tables(&["a:1"]).is_host("b:2"));
        }
    }

    #[test]
    fn changes_leave_other_types_as_they_are() {
        let before = Tables::default().with(
            [
                ("t".into(), hosts(&["a:1"])),
                ("u".into(), hosts(&["a:1", "b:2"])),
            ]
            .into(),
        );
        let after = before.with(
            [
                ("t".into(), hosts(&["b:2"])),
                ("u".into(), hosts(&["a:1", "b:2"])),
                ("v".into(), hosts(&["b:2"])),
            ]
            .into(),
        );
        assert!(!after.shares(&before, "t") && !after.shares(&before, "v"));
        assert!(after.shares(&before, "u"), "it is the same one");
        assert_eq!(&*after.owner("t", "1").unwrap().address, "b:2");
        let removed = after.with([("t".into(), Addresses::new())].into());
        assert!(!removed.has("t") && removed.has("v"));
        let taken = before.with_types_of(&removed, [&"t".into(), &"v".into()]);
        assert!(!taken.has("t") && taken.shares(&before, "u") && taken.shares(&removed, "v"));
    }

    proptest! {
        #[test]
        fn a_host_that_joins_takes_actors_but_moves_none_between_others(
            ids in prop::collection::vec("[a-z|é]{0,12}", 1..40)
        ) {
            for tables in [rings, scored] {
                let (before, after) = (tables(&["a:1", "b:2"]), tables(&["a:1", "b:2", "c:3"]));
                for id in &ids {
                    let (old, new) = (before.owner("t", id).unwrap(), after.owner("t", id).unwrap());
                    prop_assert!(old == new || &*new.address == "c:3");
                }
            }
        }
    }
}
