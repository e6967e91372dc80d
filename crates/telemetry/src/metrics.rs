//! Metrics in the Prometheus text format, under the names that the published
//! dashboards query. Most counters have no `_total`, so names are used as given.

use std::collections::HashMap;

pub use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use prometheus::{HistogramOpts, Opts, TextEncoder, core::Collector};

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
    /// A registry that already tells the process's own resources.
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

mod process {
    //! Resident memory, open files, threads, processor time and start time of
    //! this process, read from `/proc/self` at each scrape.

    use prometheus::core::{Collector, Desc};
    use prometheus::proto::MetricFamily;
    use prometheus::{Counter, Gauge};

    /// Reads a figure of this process.
    type Read = fn() -> Option<f64>;

    pub(super) struct Process {
        cpu: Counter,
        gauges: [(Gauge, Read); 4],
    }

    impl Process {
        pub(super) fn new() -> Self {
            let gauge = |name: &str, help: &str| {
                Gauge::new(name, help).unwrap_or_else(|e| super::invalid(name, e))
            };
            let cpu = "process_cpu_seconds_total";
            let cpu = Counter::new(cpu, "Total user and system CPU time spent in seconds.")
                .unwrap_or_else(|e| super::invalid(cpu, e));
            Self {
                cpu,
                gauges: [
                    (
                        gauge(
                            "process_resident_memory_bytes",
                            "Resident memory size in bytes.",
                        ),
                        resident,
                    ),
                    (
                        gauge("process_open_fds", "Number of open file descriptors."),
                        open_files,
                    ),
                    (
                        gauge("process_threads", "Number of OS threads in the process."),
                        threads,
                    ),
                    (
                        gauge(
                            "process_start_time_seconds",
                            "Start time of the process since unix epoch in seconds.",
                        ),
                        start_time,
                    ),
                ],
            }
        }
    }

    impl Collector for Process {
        fn desc(&self) -> Vec<&Desc> {
            let mut all = self.cpu.desc();
            all.extend(self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()));
            all
        }

        fn collect(&self) -> Vec<MetricFamily> {
            if let Some(seconds) = cpu_seconds() {
                let more = seconds - self.cpu.get();
                if more > 0.0 {
                    self.cpu.inc_by(more);
                }
            }
            let mut families = self.cpu.collect();
            for (gauge, read) in &self.gauges {
                if let Some(value) = read() {
                    gauge.set(value);
                    families.extend(gauge.collect());
                }
            }
            families
        }
    }

    /// Field `n` of `/proc/self/stat`, counted from 1 as proc(5) does.
    fn stat(n: usize) -> Option<f64> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        let after_name = text.rsplit_once(')')?.1;
        after_name.split_whitespace().nth(n - 3)?.parse().ok()
    }

    fn ticks_per_second() -> f64 {
        rustix::param::clock_ticks_per_second() as f64
    }

    fn resident() -> Option<f64> {
        Some(stat(24)? * rustix::param::page_size() as f64)
    }

    fn threads() -> Option<f64> {
        stat(20)
    }

    fn cpu_seconds() -> Option<f64> {
        Some((stat(14)? + stat(15)?) / ticks_per_second())
    }

    fn open_files() -> Option<f64> {
        Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
    }

    fn start_time() -> Option<f64> {
        let stat_text = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = stat_text
            .lines()
            .find_map(|l| l.strip_prefix("btime "))?
            .trim()
            .parse()
            .ok()?;
        Some(boot + stat(22)? / ticks_per_second())
    }
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
    fn process_figures() {
        let text = Registry::new().text();
        let resident = text
            .lines()
            .find_map(|l| l.strip_prefix("process_resident_memory_bytes "))
            .unwrap();
        assert!(resident.parse::<f64>().unwrap() > 100_000.0);
    }
}
