//! Which of several hosts an actor belongs to. Every sidecar and every scheduler
//! computes the same from the addresses of the hosts alone, so a change of any
//! result would move actors: another algorithm needs another name on the wire.

use xxhash_rust::xxh64::Xxh64;

/// The host with the highest score has the actor, of several the first in byte
/// order. The order of `addresses` does not matter, nor whether one comes twice.
pub fn owner<'a>(addresses: impl IntoIterator<Item = &'a str>, id: &str) -> Option<&'a str> {
    let scored = addresses.into_iter().map(|it| (score(it, id), it));
    let best = scored.max_by(|(a, one), (b, other)| a.cmp(b).then(other.cmp(one)));
    best.map(|(_, address)| address)
}

/// What a host is worth for an actor.
pub fn score(address: &str, id: &str) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(address.as_bytes());
    hash.update(b"||");
    hash.update(id.as_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTS: [&str; 3] = ["10.0.0.1:50002", "10.0.0.2:50002", "10.0.0.3:50002"];

    #[test]
    fn scores_are_those_of_every_dapr() {
        assert_eq!(
            HOSTS.map(|host| score(host, "actor-1")),
            [
                11_841_101_866_786_924_059,
                14_141_808_514_106_082_977,
                1_347_952_300_613_944_576
            ]
        );
    }

    #[test]
    fn owners_are_those_of_every_dapr() {
        for (id, host) in [
            ("actor-1", 2),
            ("actor-2", 3),
            ("actor-3", 1),
            ("actor-4", 1),
            ("actor-5", 3),
            ("0", 2),
            ("", 2),
            ("ολυ-unicode-κλειδί", 1),
            ("myactor||weird", 1),
        ] {
            assert_eq!(owner(HOSTS, id), Some(HOSTS[host - 1]), "{id}");
        }
        assert_eq!(owner([], "actor-1"), None);
    }

    proptest! {
        #[test]
        fn a_host_that_leaves_moves_only_its_own_actors(
            hosts in proptest::collection::btree_set("[a-z0-9.]{1,20}:[0-9]{1,5}", 2..20),
            gone in any::<proptest::sample::Index>(),
            id in ".{0,40}",
        ) {
            let all: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let gone = *gone.get(&all);
            let before = owner(all.iter().copied(), &id);
            let left = all.iter().rev().copied().filter(|it| *it != gone);
            let after = owner(left, &id);
            prop_assert!(before == Some(gone) || before == after);
            prop_assert_ne!(after, Some(gone));
        }
    }
}
