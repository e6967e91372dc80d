//! The metrics of placement, under Dapr's names.

use outrider_telemetry::metrics::{IntGauge, IntGaugeVec, Registry};

#[derive(Clone)]
pub struct Metrics {
    /// Streams of sidecars, by namespace.
    pub runtimes: IntGaugeVec,
    /// Those that host actors.
    pub actor_runtimes: IntGaugeVec,
    leader: IntGauge,
    elected: IntGauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let labels = ["host_namespace"];
        Self {
            runtimes: registry.gauges(
                "dapr_placement_runtimes_total",
                "The number of sidecars that are connected.",
                &labels,
            ),
            actor_runtimes: registry.gauges(
                "dapr_placement_actor_runtimes_total",
                "The number of connected sidecars that host actors.",
                &labels,
            ),
            leader: registry.gauge(
                "dapr_placement_leader_status",
                "1 if this replica serves sidecars.",
            ),
            elected: registry.gauge(
                "dapr_placement_raft_leader_status",
                "1 if this replica is elected.",
            ),
        }
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
        self.elected.set(leads.into());
    }
}
