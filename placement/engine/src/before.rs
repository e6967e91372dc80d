//! What a leader has to know of the one before it. That one may have been cut
//! off or frozen: then its sidecars do not know yet that it leads no more, and
//! go on with its tables. A table without one of them would have its actors
//! twice.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use crate::Host;

/// After a leader was heard last, its sidecars follow it for so long at most:
/// it leads for 0.6 s without an answer, they give a silent stream up after
/// 3.5 s, and may themselves stand still for 1 s.
const FOLLOWED: Duration = Duration::from_millis(5200);

/// Which sidecars with actors a leader has: as much as it takes to see whether
/// another one has the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hosts {
    pub count: u64,
    /// Of hashes, in any order. Replicas of another build may differ: then they
    /// wait for hosts that are there.
    pub sum: u64,
}

impl Hosts {
    pub fn add(&mut self, host: &Host) {
        let mut hash = DefaultHasher::new();
        (&host.namespace, &host.name).hash(&mut hash);
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash.finish());
    }
}

/// Which heartbeat it was: the later one is the greater one, whenever it arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    pub term: u64,
    pub number: u64,
}

/// The leader before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Of the heartbeat that says which hosts there are.
    pub stamp: Stamp,
    /// None if that is not known: nobody has heard of a leader.
    pub hosts: Option<Hosts>,
    /// Its last heartbeat; it may have been one until then.
    pub heard: Instant,
}

/// What a replica tells another one of the leader before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub stamp: Stamp,
    pub hosts: Option<Hosts>,
    pub ago: Duration,
}

impl Before {
    /// For another replica.
    pub fn for_others(self, now: Instant) -> Heard {
        Heard {
            stamp: self.stamp,
            hosts: self.hosts,
            ago: now.saturating_duration_since(self.heard),
        }
    }

    /// What another replica has sent. It comes a bit later than it was true:
    /// then the leader is followed for longer.
    pub fn of(heard: Heard, now: Instant) -> Option<Self> {
        Some(Self {
            stamp: heard.stamp,
            hosts: heard.hosts,
            heard: now.checked_sub(heard.ago)?,
        })
    }

    /// What is known with another one: the hosts of the later heartbeat, and the
    /// later time. One that arrives late may be an old one.
    pub fn with(self, other: Self) -> Self {
        let later = if other.stamp > self.stamp {
            other
        } else {
            self
        };
        Self {
            heard: self.heard.max(other.heard),
            ..later
        }
    }

    /// When none of its sidecars follows it any more.
    pub fn is_over(&self) -> Instant {
        self.heard + FOLLOWED
    }
}
