//! The metrics of a scheduler, under Dapr's names.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrider_proto::scheduler::v1::JobMetadata;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_scheduler_engine::{Counted, Kind};
use outrider_telemetry::metrics::{
    Buckets, Counter, Family, Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry, Rewrites,
};

/// Keys of limits that have series of their own: clients choose them.
const MOST_KEYS: usize = 1000;

/// Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    keys: Arc<Mutex<HashSet<Arc<str>>>>,
    sidecars: IntGauge,
    created: IntCounterVec,
    deleted: IntCounterVec,
    created_failed: IntCounterVec,
    triggered: IntCounterVec,
    failed: IntCounterVec,
    undelivered: IntCounterVec,
    bulk_deleted: Family<Counter>,
    latency: Family<Histogram>,
    in_flight: IntGaugeVec,
    pending: IntGaugeVec,
    throttled: IntCounterVec,
    errors: IntCounterVec,
    overdue: IntGauge,
    staged: IntGauge,
    pub etcd_leader: IntGauge,
    pub etcd_size: IntGauge,
}

fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Job => "job",
        Kind::Actor => "actor",
    }
}

/// The `type` of what a request is about.
fn label_of(metadata: Option<&JobMetadata>) -> &'static str {
    let target = metadata.and_then(|it| it.target.as_ref()?.r#type.as_ref());
    match target {
        Some(Type::Job(_)) => "job",
        Some(Type::Actor(_)) => "actor",
        None => "unknown",
    }
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let of_type = |name: &str, help: &str| {
            registry.counters(&format!("dapr_scheduler_{name}"), help, &["type"])
        };
        let key = &["concurrency_key"];
        let latency = registry.family(
            "dapr_scheduler_trigger_latency",
            "Milliseconds from sending a job to its answer.",
            &["type"],
            &[],
            &Rewrites::default(),
            Buckets::milliseconds(&[0, 100, 500, 1000, 5000, 10_000]),
        );
        let bulk_deleted = registry.family(
            "dapr_scheduler_jobs_bulk_deleted_total",
            "Requests that delete all jobs of a kind.",
            &[],
            &[],
            &Rewrites::default(),
            (),
        );
        Self {
            keys: Arc::default(),
            sidecars: registry.gauge(
                "dapr_scheduler_sidecars_connected",
                "Streams of sidecars that wait for jobs.",
            ),
            created: of_type("jobs_created_total", "Jobs that were created."),
            deleted: of_type("jobs_deleted_total", "Requests that deleted a job."),
            created_failed: of_type("jobs_created_failed_total", "Jobs that were refused."),
            triggered: of_type("jobs_triggered_total", "Jobs that a sidecar accepted."),
            failed: of_type("jobs_failed_total", "Jobs that a sidecar did not accept."),
            undelivered: of_type(
                "jobs_undelivered_total",
                "Jobs that nobody could take, or whose stream ended before the answer.",
            ),
            bulk_deleted,
            latency,
            in_flight: registry.gauges(
                "dapr_scheduler_concurrency_inflight",
                "Jobs under way that count for a limit.",
                key,
            ),
            pending: registry.gauges(
                "dapr_scheduler_concurrency_pending",
                "Jobs that wait for a limit.",
                key,
            ),
            throttled: registry.counters(
                "dapr_scheduler_concurrency_throttled_total",
                "Jobs that had to wait for a limit.",
                key,
            ),
            errors: registry.counters(
                "dapr_scheduler_sidecar_errors_total",
                "Errors of streams, and refused requests.",
                &["reason"],
            ),
            overdue: registry.gauge(
                "outrider_scheduler_overdue_milliseconds",
                "How long the oldest job that could be delivered has been due.",
            ),
            staged: registry.gauge(
                "outrider_scheduler_jobs_staged",
                "Jobs that are due and that no connected sidecar can take.",
            ),
            etcd_leader: registry
                .gauge("etcd_server_has_leader", "Whether the store has a leader."),
            etcd_size: registry.gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Size of the store's file.",
            ),
        }
    }

    /// Further keys share the series without one.
    fn key<'a>(&self, key: &'a Arc<str>) -> &'a str {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains(key) {
            if keys.len() >= MOST_KEYS {
                return "";
            }
            keys.insert(key.clone());
        }
        key
    }

    pub fn sidecars(&self, count: usize) {
        self.sidecars.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn overdue(&self, since: Duration, staged: usize) {
        let milliseconds = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        self.overdue.set(milliseconds);
        self.staged.set(i64::try_from(staged).unwrap_or(i64::MAX));
    }

    pub fn created(&self, metadata: Option<&JobMetadata>) {
        self.created.with_label_values(&[label_of(metadata)]).inc();
    }

    pub fn create_failed(&self, metadata: Option<&JobMetadata>) {
        self.created_failed
            .with_label_values(&[label_of(metadata)])
            .inc();
    }

    pub fn deleted(&self, metadata: Option<&JobMetadata>) {
        self.deleted.with_label_values(&[label_of(metadata)]).inc();
    }

    pub fn bulk_deleted(&self) {
        self.bulk_deleted.with(&[]).inc();
    }

    pub fn auth_failed(&self) {
        self.errors.with_label_values(&["auth_failed"]).inc();
    }

    pub fn send_failed(&self) {
        self.errors.with_label_values(&["send_failed"]).inc();
    }

    pub fn receive_failed(&self) {
        self.errors.with_label_values(&["recv_failed"]).inc();
    }

    pub fn count(&self, counted: &Counted) {
        match counted {
            Counted::Triggered(kind) => self.triggered.with_label_values(&[label(*kind)]).inc(),
            Counted::Failed(kind) => self.failed.with_label_values(&[label(*kind)]).inc(),
            Counted::Undelivered(kind) => {
                self.undelivered.with_label_values(&[label(*kind)]).inc();
            }
            Counted::Latency(kind, latency) => {
                self.latency.with(&[label(*kind)]).record_duration(*latency);
            }
            Counted::InFlight(key, count) => {
                let gauge = self.in_flight.with_label_values(&[self.key(key)]);
                gauge.set(i64::from(*count));
            }
            Counted::Pending(key, count) => {
                let gauge = self.pending.with_label_values(&[self.key(key)]);
                gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
            }
            Counted::Throttled(key) => self.throttled.with_label_values(&[self.key(key)]).inc(),
        }
    }
}
