//! The metrics of placement in a scheduler, under Dapr's names.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrider_telemetry::metrics::{
    Buckets, Family, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    Rewrites,
};

/// Actor types that have series of their own: sidecars choose them.
const MOST_TYPES: usize = 1000;

pub struct Metrics {
    leader: IntGauge,
    streams: IntGaugeVec,
    rounds: IntCounter,
    latency: Family<Histogram>,
    incapable: IntGauge,
    updates: IntCounterVec,
    types: Mutex<HashSet<Arc<str>>>,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        Self {
            leader: registry.gauge(
                "dapr_scheduler_placement_leader",
                "1 if this scheduler serves placement.",
            ),
            streams: registry.gauges(
                "dapr_scheduler_placement_streams_connected",
                "Streams of sidecars that take part in placement.",
                &["namespace"],
            ),
            rounds: registry.counter(
                "dapr_scheduler_placement_disseminations_total",
                "Rounds that were begun.",
            ),
            latency: registry.family(
                "dapr_scheduler_placement_dissemination_latency",
                "Milliseconds of a round that all sidecars have gone through.",
                &[],
                &[],
                &Rewrites::default(),
                Buckets::milliseconds(&[1, 10, 50, 100, 500, 1000, 5000, 10_000]),
            ),
            incapable: registry.gauge(
                "dapr_scheduler_placement_incapable_sidecars",
                "Connected sidecars that cannot use the placement that schedulers serve.",
            ),
            updates: registry.counters(
                "dapr_scheduler_placement_table_updates_total",
                "Tables that all sidecars of a namespace have taken over.",
                &["actor_type"],
            ),
            types: Mutex::default(),
        }
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    pub fn streams(&self, namespace: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.streams.with_label_values(&[namespace]).set(count);
    }

    pub fn forget(&self, namespace: &str) {
        let _ = self.streams.remove_label_values(&[namespace]);
    }

    pub fn incapable(&self, count: usize) {
        self.incapable.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn ended(&self, took: Duration) {
        self.latency.with(&[]).record_duration(took);
    }

    pub fn begun(&self) {
        self.rounds.inc();
    }

    /// Further types share the series without one.
    pub fn updated(&self, names: &[Arc<str>]) {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let is_counted =
                types.contains(name) || (types.len() < MOST_TYPES && types.insert(name.clone()));
            let label: &str = if is_counted { name } else { "" };
            self.updates.with_label_values(&[label]).inc();
        }
    }
}
