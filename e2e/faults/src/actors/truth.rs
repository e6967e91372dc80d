//! What the health pages say, all the while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use outrider_harness::http::Client;
use tokio::task::JoinSet;

use crate::load::between;
use crate::side::is_well;

const PACE: Duration = Duration::from_millis(200);

/// A page, and its path.
pub type Page = (Client, &'static str);

/// When it answered, and whether every page said that all is well.
type Sample = (SystemTime, bool);

pub struct Truth {
    samples: Arc<Mutex<Vec<Sample>>>,
    _watching: JoinSet<()>,
}

/// What they said.
#[derive(Debug, Default)]
pub struct Health(Vec<Sample>);

impl Truth {
    pub fn watch(pages: Vec<Page>) -> Truth {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let (kept, mut watching) = (samples.clone(), JoinSet::new());
        watching.spawn(async move {
            let mut ticks = tokio::time::interval(PACE);
            loop {
                ticks.tick().await;
                let mut asked = JoinSet::new();
                for (client, path) in pages.clone() {
                    asked.spawn(async move { is_well(&client, path).await });
                }
                let well = asked.join_all().await.into_iter().all(|well| well);
                // What was asked of a frozen process may be answered when it is not.
                let at = SystemTime::now();
                (kept.lock().unwrap_or_else(PoisonError::into_inner)).push((at, well));
            }
        });
        Truth {
            samples,
            _watching: watching,
        }
    }

    pub async fn stop(self) -> Health {
        Health(
            self.samples
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

impl Health {
    /// For how long all pages said that all is well while it was not: `stalls` are from,
    /// to, and what is before `since` does not count.
    pub fn lied(&self, stalls: &[(SystemTime, SystemTime)], since: SystemTime) -> Duration {
        let lie = |pair: &[Sample]| {
            // Between two that agree: a page that does not answer takes a second.
            let [(at, well), (next, still)] = pair else {
                return Duration::ZERO;
            };
            let stalled = stalls.iter().any(|(from, to)| from <= at && at < to);
            if *well && *still && *at >= since && stalled {
                between(*at, *next)
            } else {
                Duration::ZERO
            }
        };
        self.0.windows(2).map(lie).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_page_lies_that_says_all_is_well_in_a_stall() {
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        let said = [true, true, false, true, true, true];
        let samples = said
            .iter()
            .zip(0..)
            .map(|(well, second)| (at(second), *well));
        let health = Health(samples.collect());
        let lied = |since| health.lied(&[(at(1), at(4))], at(since)).as_secs();
        assert_eq!((lied(0), lied(4)), (1, 0));
    }
}
