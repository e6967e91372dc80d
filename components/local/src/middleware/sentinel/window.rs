//! Counts of the last while, in buckets that go one by one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Window {
    start: Instant,
    /// Of one bucket.
    length: Duration,
    most: usize,
    /// With their numbers since the start, which grow.
    buckets: VecDeque<(u128, Counts)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    pub all: u64,
    /// Those that were slow or failed.
    pub bad: u64,
    /// Milliseconds.
    pub time: f64,
}

impl Window {
    /// Of so many milliseconds, in so many buckets.
    pub fn new(milliseconds: u32, buckets: u32, now: Instant) -> Window {
        let buckets = buckets.clamp(1, 1000);
        let length = Duration::from_millis(milliseconds.max(1).into()) / buckets;
        Window {
            start: now,
            length: length.max(Duration::from_millis(1)),
            most: buckets as usize,
            buckets: VecDeque::new(),
        }
    }

    fn number(&self, now: Instant) -> u128 {
        let since = now.saturating_duration_since(self.start);
        since.as_nanos() / self.length.as_nanos()
    }

    /// Forgets what is too old.
    fn pass_on(&mut self, now: Instant) -> u128 {
        let number = self.number(now);
        let is_old = |(old, _): &(u128, Counts)| old + self.most as u128 <= number;
        while self.buckets.front().is_some_and(is_old) {
            self.buckets.pop_front();
        }
        number
    }

    pub fn add(&mut self, counts: Counts, now: Instant) {
        let number = self.pass_on(now);
        match self.buckets.back_mut() {
            Some((last, there)) if *last == number => {
                there.all += counts.all;
                there.bad += counts.bad;
                there.time += counts.time;
            }
            _ => self.buckets.push_back((number, counts)),
        }
    }

    pub fn sum(&mut self, now: Instant) -> Counts {
        self.pass_on(now);
        let counts = self.buckets.iter().map(|(_, counts)| *counts);
        counts.fold(Counts::default(), |sum, counts| Counts {
            all: sum.all + counts.all,
            bad: sum.bad + counts.bad,
            time: sum.time + counts.time,
        })
    }

    pub fn clear(&mut self) {
        self.buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_go_bucket_by_bucket() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut window = Window::new(1000, 2, start);
        let one = Counts {
            all: 1,
            ..Counts::default()
        };
        for milliseconds in [0, 100, 600, 1000] {
            window.add(one, at(milliseconds));
        }
        for (milliseconds, wanted) in [(1000, 2), (1499, 2), (1500, 1), (2000, 0)] {
            assert_eq!(window.sum(at(milliseconds)).all, wanted, "{milliseconds}");
        }
        window.add(one, at(9000));
        window.clear();
        assert_eq!(window.sum(at(9000)).all, 0);
    }
}
