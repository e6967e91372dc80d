//! What is counted about policies.

use std::sync::Arc;

use outrider_telemetry::metrics::{IntCounterVec, IntGaugeVec, Registry};

use crate::Direction;
use crate::breaker::State;

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    app_id: String,
    loaded: IntCounterVec,
    applied: IntCounterVec,
    activated: IntCounterVec,
    breakers: IntGaugeVec,
    trips_failed: IntCounterVec,
}

const LABELS: [&str; 7] = [
    "app_id",
    "name",
    "policy",
    "namespace",
    "flow_direction",
    "target",
    "status",
];

impl Metrics {
    /// Registers them for the sidecar of `app_id`.
    pub fn new(registry: &Registry, app_id: &str) -> Metrics {
        Metrics {
            app_id: app_id.to_owned(),
            loaded: registry.counters(
                "dapr_resiliency_loaded",
                "Number of resiliency policies loaded.",
                &["app_id", "name", "namespace"],
            ),
            applied: registry.counters(
                "dapr_resiliency_count",
                "Number of times a resiliency policy was applied to a call.",
                &LABELS,
            ),
            activated: registry.counters(
                "dapr_resiliency_activations_total",
                "Number of times a resiliency policy acted: a retry, a timeout, a change of a circuit breaker.",
                &LABELS,
            ),
            breakers: registry.gauges(
                "dapr_resiliency_cb_state",
                "State of a circuit breaker: 1 for the one it is in.",
                &LABELS,
            ),
            trips_failed: registry.counters(
                "dapr_resiliency_cb_trip_failed_total",
                "Number of times the trip of a circuit breaker could not be evaluated.",
                &["app_id", "name", "namespace", "flow_direction", "target"],
            ),
        }
    }

    pub(crate) fn loaded(&self, origin: &Origin) {
        let labels = [&self.app_id, &origin.name, &origin.namespace];
        self.loaded.with_label_values(&labels).inc();
    }
}

/// The resource that a policy stands in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub name: String,
    pub namespace: String,
}

/// Something with the resource it stands in.
#[derive(Debug, PartialEq)]
pub(crate) struct Sourced<T> {
    pub value: T,
    pub origin: Arc<Origin>,
}

impl<T> std::ops::Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Timeout,
    Retry,
    Breaker,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Timeout => "timeout",
            Kind::Retry => "retry",
            Kind::Breaker => "circuitbreaker",
        }
    }
}

/// Counts for one target.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    metrics: Arc<Metrics>,
    direction: Direction,
    target: Arc<str>,
}

impl Watch {
    pub fn new(metrics: &Arc<Metrics>, direction: Direction, target: String) -> Watch {
        Watch {
            metrics: metrics.clone(),
            direction,
            target: target.into(),
        }
    }

    fn labels<'a>(&'a self, kind: Kind, origin: &'a Origin, status: &'a str) -> [&'a str; 7] {
        [
            &self.metrics.app_id,
            &origin.name,
            kind.name(),
            &origin.namespace,
            self.direction.name(),
            &self.target,
            status,
        ]
    }

    pub fn applied(&self, kind: Kind, origin: &Origin, state: Option<State>) {
        let labels = self.labels(kind, origin, state.map_or("", State::name));
        self.metrics.applied.with_label_values(&labels).inc();
    }

    pub fn activated(&self, kind: Kind, origin: &Origin, state: Option<State>) {
        let labels = self.labels(kind, origin, state.map_or("", State::name));
        self.metrics.activated.with_label_values(&labels).inc();
    }

    pub fn trip_failed(&self, origin: &Origin) {
        let labels = [
            &self.metrics.app_id,
            &origin.name,
            &origin.namespace,
            self.direction.name(),
            &*self.target,
        ];
        self.metrics.trips_failed.with_label_values(&labels).inc();
    }

    pub fn state(&self, origin: &Origin, state: State) {
        for status in ["closed", "half-open", "open", "unknown"] {
            let labels = self.labels(Kind::Breaker, origin, status);
            let is = i64::from(status == state.name());
            self.metrics.breakers.with_label_values(&labels).set(is);
        }
    }
}
