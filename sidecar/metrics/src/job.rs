//! Jobs that were due.

use std::sync::Arc;
use std::time::Duration;

use outrider_telemetry::metrics::{Counter, Family, Histogram};

use super::{Labels, Names};

const OPERATION: &str = "job_trigger_op";

pub struct Families {
    app_id: String,
    namespace: String,
    succeeded: Family<Counter>,
    failed: Family<Counter>,
    latency: Family<Histogram>,
}

impl Families {
    pub(super) fn new(names: &Names<'_>) -> Self {
        const LABELS: Labels = &["app_id", "namespace", "operation"];
        Self {
            app_id: names.app_id.to_owned(),
            namespace: names.namespace.to_owned(),
            succeeded: names.counter(
                "component_job_success_count",
                "Jobs that the application has done.",
                LABELS,
                &[],
            ),
            failed: names.counter(
                "component_job_failure_count",
                "Jobs that the application has not done.",
                LABELS,
                &[],
            ),
            latency: names.latency(
                "component_job_latencies",
                "Milliseconds that the application took for a job.",
                &["app_id", "namespace", "operation", "success"],
                &[],
            ),
        }
    }
}

/// What counts the jobs of the application.
#[derive(Clone, Default)]
pub struct Jobs(pub(super) Option<Arc<Families>>);

impl Jobs {
    pub fn delivered(&self, success: bool, took: Duration) {
        let Some(families) = &self.0 else { return };
        let labels = [&families.app_id, families.namespace.as_str(), OPERATION];
        let count = match success {
            true => &families.succeeded,
            false => &families.failed,
        };
        count.with(&labels).inc();
        let success = if success { "true" } else { "false" };
        let [app_id, namespace, operation] = labels;
        let latency = families
            .latency
            .with(&[app_id, namespace, operation, success]);
        latency.record_duration(took);
    }
}
