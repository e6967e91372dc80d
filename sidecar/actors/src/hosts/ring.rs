//! The hosts of types as the placement service has them: points on a ring of
//! hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake2::{Blake2b512, Digest as _};

use super::{Addresses, Host};

/// The hosts of one type, as points on a ring of hashes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ring {
    hosts: Vec<Host>,
    /// The points in order, each with the index of its host.
    points: Vec<(u64, u32)>,
}

/// Most points of all rings together: more is a mistake, or an attack.
const MOST_POINTS: usize = 64 << 20;

/// A ring for each type that has hosts, with so many points of every host.
pub(super) fn rings(types: BTreeMap<Arc<str>, Addresses>, points: u32) -> BTreeMap<Arc<str>, Ring> {
    let hosts: usize = types.values().map(BTreeMap::len).sum();
    let most = u32::try_from(MOST_POINTS / hosts.max(1)).unwrap_or(u32::MAX);
    let points = points.min(most);
    // The same hosts have the same points in every type.
    let mut hashes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut rings = BTreeMap::new();
    for (kind, hosts) in types {
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
    rings
}

impl Ring {
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub fn owner(&self, id: &str) -> Option<&Host> {
        let hash = hash(id);
        let at = self.points.partition_point(|(point, _)| *point < hash);
        let (_, index) = self.points.get(at).or_else(|| self.points.first())?;
        self.hosts.get(*index as usize)
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
    use super::*;

    #[test]
    fn hashes_are_the_first_bytes_of_blake2b() {
        // RFC 7693, appendix A: BLAKE2b-512 of "abc" begins with ba80a53f981c4d0d.
        assert_eq!(
            hash("abc"),
            u64::from_le_bytes([0xba, 0x80, 0xa5, 0x3f, 0x98, 0x1c, 0x4d, 0x0d])
        );
    }

    #[test]
    fn a_ring_never_grows_without_bound() {
        let hosts = [("t".into(), [("a:1".to_owned(), String::new())].into())].into();
        assert!(rings(hosts, 1000)["t"].points.len() <= MOST_POINTS);
    }
}
