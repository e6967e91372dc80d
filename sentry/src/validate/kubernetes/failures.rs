//! Counts invalid tokens by address. Each costs the API server a review, so an
//! address that sends many is refused without one for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outrider_host::server::Source;
use tokio::time::Instant;

/// Failures that an address may have at a time. Behind address translation an
/// address may be a whole node, so it is not one.
const ALLOWED: f64 = 20.0;
/// No more than these are counted: of requests that are under way at once all may
/// fail before the first failure is known.
const MAX_COUNTED: f64 = 30.0;
/// The count falls by one in this time.
const RECOVERY: Duration = Duration::from_secs(1);
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 4096;

/// Failures by address.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<Source, Count>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    /// As of `at`.
    failures: f64,
    at: Instant,
}

impl Count {
    fn at(self, now: Instant) -> f64 {
        let recovered = (now - self.at).as_secs_f64() / RECOVERY.as_secs_f64();
        (self.failures - recovered).max(0.0)
    }
}

impl Failures {
    /// Whether tokens of this address are reviewed.
    pub fn allows(&self, address: Source, now: Instant) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&address).is_none_or(|it| it.at(now) < ALLOWED)
    }

    pub fn count(&self, address: Source, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&address) {
            counts.retain(|_, it| it.at(now) > 0.0);
            if counts.len() >= MAX_ADDRESSES {
                // The one with the fewest failures is allowed again first.
                let least = counts
                    .iter()
                    .min_by(|(_, a), (_, b)| a.at(now).total_cmp(&b.at(now)));
                if let Some(least) = least.map(|(address, _)| *address) {
                    counts.remove(&least);
                }
            }
        }
        let none = Count {
            failures: 0.0,
            at: now,
        };
        let count = counts.entry(address).or_insert(none);
        *count = Count {
            failures: (count.at(now) + 1.0).min(MAX_COUNTED),
            at: now,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(last: u16) -> Source {
        let [high, low] = last.to_be_bytes();
        IpAddr::from(Ipv4Addr::new(10, 0, high, low)).into()
    }

    #[test]
    fn an_address_with_many_failures_has_to_wait_and_others_do_not() {
        let failures = Failures::default();
        let start = Instant::now();
        for _ in 0..20 {
            assert!(failures.allows(address(1), start));
            failures.count(address(1), start);
        }
        assert!(!failures.allows(address(1), start));
        assert!(failures.allows(address(2), start));
        let later = start + RECOVERY + Duration::from_millis(1);
        for _ in 0..2 {
            assert!(failures.allows(address(1), later));
            failures.count(address(1), later);
        }
        assert!(!failures.allows(address(1), later));
    }

    #[test]
    fn the_address_with_most_failures_is_kept_however_many_others_come() {
        let failures = Failures::default();
        let now = Instant::now();
        for _ in 0..30 {
            failures.count(address(0), now);
        }
        for n in 1..10_000 {
            failures.count(address(n), now);
        }
        assert!(!failures.allows(address(0), now));
        assert_eq!(failures.0.lock().unwrap().len(), MAX_ADDRESSES);
    }
}
