//! Which of the hosts of a type has an actor. Every sidecar computes the same
//! from the tables of placement, which have the hosts only.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2b512, Digest as _};

/// A sidecar that hosts actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where its internal API is, `host:port`.
    pub address: Arc<str>,
    pub app_id: Arc<str>,
}

/// The hosts of one type, as points on a ring of hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ring {
    hosts: Vec<Host>,
    /// The points in order, each with the index of its host.
    points: Vec<(u64, u32)>,
}

/// Where the actors of all types are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    rings: BTreeMap<Arc<str>, Ring>,
}

/// Most points of all rings together: more is a mistake, or an attack.
const MOST_POINTS: usize = 64 << 20;

impl Tables {
    /// Of each type, addresses of the hosts with their app ids. Every host has
    /// `points` places on the ring.
    pub fn new(types: BTreeMap<Arc<str>, BTreeMap<String, String>>, points: u32) -> Self {
        let hosts: usize = types.values().map(BTreeMap::len).sum();
        let most = u32::try_from(MOST_POINTS / hosts.max(1)).unwrap_or(u32::MAX);
        let points = points.min(most);
        // The same hosts have the same points in every type.
        let mut hashes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut rings = BTreeMap::new();
        for (kind, hosts) in types {
            let hosts: Vec<(String, String)> = hosts.into_iter().collect();
            let mut ring = Ring {
                points: Vec::with_capacity(hosts.len().saturating_mul(points as usize)),
                hosts: Vec::with_capacity(hosts.len()),
            };
            for (index, (address, app_id)) in (0u32..).zip(hosts) {
                let own = hashes.entry(address.clone()).or_insert_with(|| {
                    (0..points)
                        .map(|n| hash(&format!("{address}{n}")))
                        .collect()
                });
                ring.points.extend(own.iter().map(|hash| (*hash, index)));
                ring.hosts.push(Host {
                    address: address.into(),
                    app_id: app_id.into(),
                });
            }
            ring.points.sort_unstable();
            if !ring.points.is_empty() {
                rings.insert(kind, ring);
            }
        }
        Self { rings }
    }

    /// The host that an actor belongs to; none hosts the type otherwise.
    pub fn owner(&self, kind: &str, id: &str) -> Option<&Host> {
        let ring = self.rings.get(kind)?;
        let hash = hash(id);
        let at = ring.points.partition_point(|(point, _)| *point < hash);
        let (_, index) = ring.points.get(at).or_else(|| ring.points.first())?;
        ring.hosts.get(*index as usize)
    }

    /// Whether the host has any type.
    pub fn is_host(&self, address: &str) -> bool {
        let mut hosts = self.rings.values().flat_map(|ring| &ring.hosts);
        hosts.any(|host| &*host.address == address)
    }
}

fn hash(text: &str) -> u64 {
    let digest = Blake2b512::digest(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables(hosts: &[&str]) -> Tables {
        let hosts = hosts
            .iter()
            .map(|host| ((*host).to_owned(), "app".to_owned()));
        Tables::new([("t".into(), hosts.collect())].into(), 100)
    }

    #[test]
    fn hashes_are_the_first_bytes_of_blake2b() {
        // RFC 7693, appendix A: BLAKE2b-512 of "abc" begins with ba80a53f981c4d0d.
        assert_eq!(
            hash("abc"),
            u64::from_le_bytes([0xba, 0x80, 0xa5, 0x3f, 0x98, 0x1c, 0x4d, 0x0d])
        );
    }

    #[test]
    fn a_type_without_hosts_has_no_owner() {
        assert_eq!(tables(&[]).owner("t", "1"), None);
        assert_eq!(tables(&["a:1"]).owner("other", "1"), None);
        assert_eq!(&*tables(&["a:1"]).owner("t", "1").unwrap().address, "a:1");
    }

    #[test]
    fn a_ring_never_grows_without_bound() {
        let hosts = [("t".into(), [("a:1".to_owned(), String::new())].into())].into();
        assert!(Tables::new(hosts, 1000).rings["t"].points.len() <= MOST_POINTS);
    }

    proptest! {
        #[test]
        fn a_host_that_joins_takes_actors_but_moves_none_between_others(
            ids in prop::collection::vec("[a-z|é]{0,12}", 1..40)
        ) {
            let (before, after) = (tables(&["a:1", "b:2"]), tables(&["a:1", "b:2", "c:3"]));
            for id in &ids {
                let (old, new) = (before.owner("t", id).unwrap(), after.owner("t", id).unwrap());
                prop_assert!(old == new || &*new.address == "c:3");
            }
        }
    }
}
