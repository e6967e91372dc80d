//! Counters and histograms on the path of every request: a thread counts in
//! its own shard, and a scrape adds them up.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// With more threads than this, some share a shard.
const MOST_SHARDS: usize = 8;
const NANOS_PER_MILLI: u64 = 1_000_000;

pub(super) fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        threads.min(MOST_SHARDS)
    })
}

/// The shard of the calling thread.
pub(super) fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Relaxed) % shards();
    }
    MINE.with(|mine| *mine)
}

/// Alone on its cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(Box<[Line]>);

impl Default for Counter {
    fn default() -> Self {
        Self((0..shards()).map(|_| Line::default()).collect())
    }
}

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0[shard()].0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Relaxed)).sum()
    }
}

/// Upper bounds of a histogram, ascending. Values are recorded as whole
/// numbers of a small unit and shown in a larger one.
#[derive(Debug)]
pub struct Buckets {
    bounds: Box<[u64]>,
    /// Recorded units in a shown one.
    unit: u64,
}

impl Buckets {
    /// For durations, shown in milliseconds.
    pub fn milliseconds(bounds: &[u64]) -> Arc<Self> {
        Self::new(
            bounds.iter().map(|b| b.saturating_mul(NANOS_PER_MILLI)),
            NANOS_PER_MILLI,
        )
    }

    pub fn bytes(bounds: &[u64]) -> Arc<Self> {
        Self::new(bounds.iter().copied(), 1)
    }

    fn new(bounds: impl Iterator<Item = u64>, unit: u64) -> Arc<Self> {
        let mut bounds: Vec<u64> = bounds.collect();
        bounds.sort_unstable();
        bounds.dedup();
        Arc::new(Self {
            bounds: bounds.into(),
            unit,
        })
    }

    fn shown(&self, value: u64) -> f64 {
        value as f64 / self.unit as f64
    }
}

/// How often values came, by size.
#[derive(Debug)]
pub struct Histogram {
    buckets: Arc<Buckets>,
    shards: Box<[Shard]>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Shard {
    sum: AtomicU64,
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
}

/// What a histogram holds at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub sum: f64,
    pub count: u64,
    /// Upper bound, and how many values are not above it.
    pub cumulated: Vec<(f64, u64)>,
}

impl Histogram {
    pub fn new(buckets: Arc<Buckets>) -> Self {
        let counts = || {
            (0..=buckets.bounds.len())
                .map(|_| AtomicU64::new(0))
                .collect()
        };
        let shard = || Shard {
            sum: AtomicU64::new(0),
            counts: counts(),
        };
        Self {
            shards: (0..shards()).map(|_| shard()).collect(),
            buckets,
        }
    }

    pub fn record(&self, value: u64) {
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < value);
        let shard = &self.shards[shard()];
        shard.counts[bucket].fetch_add(1, Relaxed);
        shard.sum.fetch_add(value, Relaxed);
    }

    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let mut cumulated = Vec::with_capacity(self.buckets.bounds.len());
        let at = |bucket: usize| -> u64 {
            let counts = self.shards.iter().map(|s| &s.counts[bucket]);
            counts.map(|c| c.load(Relaxed)).sum()
        };
        for (bucket, bound) in self.buckets.bounds.iter().enumerate() {
            count += at(bucket);
            cumulated.push((self.buckets.shown(*bound), count));
        }
        count += at(self.buckets.bounds.len());
        let sum = self.shards.iter().map(|s| s.sum.load(Relaxed)).sum();
        Snapshot {
            sum: self.buckets.shown(sum),
            count,
            cumulated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_adds_up_all_threads() {
        let counter = Counter::default();
        let histogram = Histogram::new(Buckets::bytes(&[10, 20]));
        std::thread::scope(|scope| {
            for _ in 0..2 * MOST_SHARDS {
                scope.spawn(|| {
                    for value in 0..100 {
                        counter.inc();
                        histogram.record(value);
                    }
                });
            }
        });
        let threads = 2 * MOST_SHARDS as u64;
        assert_eq!(counter.get(), 100 * threads);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count, 100 * threads);
        assert_eq!(snapshot.sum, (4950 * threads) as f64);
        assert_eq!(
            snapshot.cumulated,
            [(10.0, 11 * threads), (20.0, 21 * threads)]
        );
    }

    #[test]
    fn durations_are_shown_in_milliseconds() {
        let histogram = Histogram::new(Buckets::milliseconds(&[1, 5]));
        histogram.record_duration(Duration::from_micros(1000));
        histogram.record_duration(Duration::from_micros(1500));
        histogram.record_duration(Duration::from_secs(1));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.cumulated, [(1.0, 1), (5.0, 2)]);
        assert_eq!((snapshot.count, snapshot.sum), (3, 1002.5));
    }
}
