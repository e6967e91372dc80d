//! Metrics in the Prometheus text format, under the names that the published
//! dashboards query. Most counters have no `_total`, so names are used as given.

mod cache;
mod cells;
mod family;
mod process;
mod rewrite;

use std::collections::HashMap;

pub use cache::{Cache, Slots};
pub use cells::{Buckets, Counter, Histogram};
pub use family::{Family, Series};
pub use prometheus::{
    Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use prometheus::{HistogramOpts, Opts, TextEncoder, core::Collector};
pub use rewrite::{BadRule, Rewrites};

/// The metrics of one process. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: prometheus::Registry,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry that already has the process's own resources.
    pub fn new() -> Self {
        let registry = Self {
            inner: prometheus::Registry::new_custom(None, Some(HashMap::new())).unwrap_or_default(),
        };
        registry.register(process::Process::new());
        registry
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        let metric = IntCounter::new(name, help).unwrap_or_else(|e| invalid(name, e));
        self.register(metric.clone());
        metric
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let metric =
            IntCounterVec::new(Opts::new(name, help), labels).unwrap_or_else(|e| invalid(name, e));
        self.register(metric.clone());
        metric
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let metric = IntGauge::new(name, help).unwrap_or_else(|e| invalid(name, e));
        self.register(metric.clone());
        metric
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let metric =
            IntGaugeVec::new(Opts::new(name, help), labels).unwrap_or_else(|e| invalid(name, e));
        self.register(metric.clone());
        metric
    }

    /// `buckets` are upper bounds in the unit of the observed values.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(options, labels).unwrap_or_else(|e| invalid(name, e));
        self.register(metric.clone());
        metric
    }

    pub fn register(&self, collector: impl Collector + 'static) {
        if let Err(error) = self.inner.register(Box::new(collector)) {
            tracing::error!(target: "dapr.metrics", "metric registered twice: {error}");
        }
    }

    /// The page that a scrape reads.
    pub fn text(&self) -> String {
        let families = self.inner.gather();
        let mut page = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut page) {
            tracing::error!(target: "dapr.metrics", "metrics cannot be written: {error}");
        }
        page
    }
}

/// Names and labels are constants of this code base, checked by every test
/// that builds them.
fn invalid<T>(name: &str, error: prometheus::Error) -> T {
    panic!("metric {name} is not valid: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_empty_ones_printed() {
        let registry = Registry::new();
        let counter = registry.counters("dapr_x_count", "x", &["b", "a"]);
        counter.with_label_values(&["", "1"]).inc();
        assert!(
            registry.text().contains("dapr_x_count{a=\"1\",b=\"\"} 1\n"),
            "{}",
            registry.text()
        );
    }

    #[test]
    fn a_new_registry_has_the_process_metrics() {
        let text = Registry::new().text();
        let resident = text
            .lines()
            .find_map(|l| l.strip_prefix("process_resident_memory_bytes "))
            .unwrap();
        assert!(resident.parse::<f64>().unwrap() > 100_000.0);
    }
}
