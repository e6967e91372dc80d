//! Resident memory, open files, threads, processor time and start time of
//! this process, read from `/proc/self` at each scrape.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Reads a figure of this process.
type Read = fn() -> Option<f64>;

pub(super) struct Process {
    cpu: Counter,
    gauges: [(Gauge, Read); 6],
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
                        "process_virtual_memory_bytes",
                        "Virtual memory size in bytes.",
                    ),
                    virtual_memory,
                ),
                (
                    gauge(
                        "process_max_fds",
                        "Maximum number of open file descriptors.",
                    ),
                    most_files,
                ),
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

fn virtual_memory() -> Option<f64> {
    stat(23)
}

fn most_files() -> Option<f64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.map(|n| n as f64)
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
