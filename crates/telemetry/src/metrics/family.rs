//! All series of one name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};

use super::cells::{Buckets, Counter, Histogram};
use super::rewrite::{Patterns, Rewrites, apply};
use super::{Registry, invalid};

/// Most series of one name. Some labels, such as paths, have values that clients
/// choose, so that their number needs a limit.
const MAX_SERIES: usize = 1000;

/// What stands at one set of labels.
pub trait Series: Send + Sync + 'static {
    /// What all of them have in common.
    type Shape: Send + Sync;
    const TYPE: MetricType;
    fn new(shape: &Self::Shape) -> Self;
    fn show(&self, metric: &mut proto::Metric);
}

impl Series for Counter {
    type Shape = ();
    const TYPE: MetricType = MetricType::COUNTER;

    fn new((): &()) -> Self {
        Self::default()
    }

    fn show(&self, metric: &mut proto::Metric) {
        let mut counter = proto::Counter::default();
        counter.set_value(self.get() as f64);
        metric.set_counter(counter);
    }
}

impl Series for Histogram {
    type Shape = Arc<Buckets>;
    const TYPE: MetricType = MetricType::HISTOGRAM;

    fn new(shape: &Arc<Buckets>) -> Self {
        Self::new(shape.clone())
    }

    fn show(&self, metric: &mut proto::Metric) {
        let snapshot = self.snapshot();
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_sum(snapshot.sum);
        histogram.set_sample_count(snapshot.count);
        let buckets = snapshot.cumulated.into_iter().map(|(bound, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        metric.set_histogram(histogram);
    }
}

/// A name with its labels. Cloning shares the series.
pub struct Family<S: Series>(Arc<Inner<S>>);

impl<S: Series> Clone for Family<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<S: Series> {
    desc: Desc,
    labels: &'static [&'static str],
    /// The labels whose values clients choose; left empty in new series when
    /// there are too many.
    open: &'static [&'static str],
    rewrites: Vec<Patterns>,
    shape: S::Shape,
    series: Mutex<BTreeMap<Vec<String>, Arc<S>>>,
}

impl Registry {
    /// A name with nothing under it yet. `labels` are in alphabetical order;
    /// the values of those in `open` are chosen by clients.
    pub fn family<S: Series>(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        open: &'static [&'static str],
        rewrites: &Rewrites,
        shape: S::Shape,
    ) -> Family<S> {
        let names = labels.iter().map(|l| (*l).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, Default::default())
            .unwrap_or_else(|e| invalid(name, e));
        let family = Family(Arc::new(Inner {
            desc,
            labels,
            open,
            rewrites: labels.iter().map(|l| rewrites.of(name, l)).collect(),
            shape,
            series: Mutex::default(),
        }));
        self.register(family.clone());
        family
    }
}

/// Numbers that something else counts, read at each scrape.
struct Reading<F> {
    desc: Desc,
    labels: &'static [&'static str],
    read: F,
    kind: MetricType,
}

impl Registry {
    /// `read` returns values of labels, in their order, and the numbers, which
    /// only grow; zeros are not shown.
    pub fn reading<F>(&self, name: &str, help: &str, labels: &'static [&'static str], read: F)
    where
        F: Fn() -> Vec<(Vec<String>, u64)> + Send + Sync + 'static,
    {
        self.register_reading(name, help, labels, read, MetricType::COUNTER);
    }

    /// The same for numbers that also fall; zeros are shown.
    pub fn reading_gauges<F>(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        read: F,
    ) where
        F: Fn() -> Vec<(Vec<String>, u64)> + Send + Sync + 'static,
    {
        self.register_reading(name, help, labels, read, MetricType::GAUGE);
    }

    fn register_reading<F>(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        read: F,
        kind: MetricType,
    ) where
        F: Fn() -> Vec<(Vec<String>, u64)> + Send + Sync + 'static,
    {
        let names = labels.iter().map(|l| (*l).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), names, Default::default())
            .unwrap_or_else(|e| invalid(name, e));
        self.register(Reading {
            desc,
            labels,
            read,
            kind,
        });
    }
}

impl<F> Collector for Reading<F>
where
    F: Fn() -> Vec<(Vec<String>, u64)> + Send + Sync,
{
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let is_gauge = self.kind == MetricType::GAUGE;
        let read = (self.read)().into_iter();
        let metrics = read.filter(|(_, n)| is_gauge || *n > 0).map(|(values, n)| {
            let mut metric = labelled(self.labels, values);
            if is_gauge {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(n as f64);
                metric.set_gauge(gauge);
            } else {
                let mut counter = proto::Counter::default();
                counter.set_value(n as f64);
                metric.set_counter(counter);
            }
            metric
        });
        vec![of(&self.desc, self.kind, metrics.collect())]
    }
}

fn labelled(names: &[&str], values: Vec<String>) -> proto::Metric {
    let pairs = names.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    });
    let mut metric = proto::Metric::default();
    metric.set_label(pairs.collect());
    metric
}

fn of(desc: &Desc, kind: MetricType, metrics: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

impl<S: Series> Family<S> {
    /// The series of these values, which are in the order of the labels.
    /// Takes a lock: keep what it returns.
    pub fn with(&self, values: &[&str]) -> Arc<S> {
        let inner = &self.0;
        debug_assert_eq!(values.len(), inner.labels.len(), "{}", inner.desc.fq_name);
        let mut values: Vec<String> = values
            .iter()
            .zip(&inner.rewrites)
            .map(|(value, patterns)| apply(patterns, value))
            .collect();
        let mut series = inner.series.lock().unwrap_or_else(|e| e.into_inner());
        if series.len() >= MAX_SERIES && !series.contains_key(&values) {
            for (label, value) in inner.labels.iter().zip(&mut values) {
                if inner.open.contains(label) {
                    value.clear();
                }
            }
        }
        series
            .entry(values)
            .or_insert_with(|| Arc::new(S::new(&inner.shape)))
            .clone()
    }
}

impl<S: Series> Collector for Family<S> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let inner = &self.0;
        let series: Vec<_> = {
            let series = inner.series.lock().unwrap_or_else(|e| e.into_inner());
            series.iter().map(|(k, s)| (k.clone(), s.clone())).collect()
        };
        let metrics = series.into_iter().map(|(values, series)| {
            let mut metric = labelled(inner.labels, values);
            series.show(&mut metric);
            metric
        });
        vec![of(&inner.desc, S::TYPE, metrics.collect())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: &[&str] = &["app_id", "path"];

    #[test]
    fn series_appear_with_their_first_recording() {
        let registry = Registry::new();
        let family = registry.family::<Histogram>(
            "dapr_x_latency",
            "x",
            LABELS,
            &["path"],
            &Rewrites::default(),
            Buckets::milliseconds(&[1, 2]),
        );
        assert!(!registry.text().contains("dapr_x"));
        family.with(&["a", ""]).record(1_500_000);
        let text = registry.text();
        for line in [
            "# TYPE dapr_x_latency histogram",
            "dapr_x_latency_bucket{app_id=\"a\",path=\"\",le=\"1\"} 0",
            "dapr_x_latency_bucket{app_id=\"a\",path=\"\",le=\"2\"} 1",
            "dapr_x_latency_bucket{app_id=\"a\",path=\"\",le=\"+Inf\"} 1",
            "dapr_x_latency_sum{app_id=\"a\",path=\"\"} 1.5",
            "dapr_x_latency_count{app_id=\"a\",path=\"\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn the_number_of_series_with_labels_of_clients_is_limited() {
        let registry = Registry::new();
        let family = registry.family::<Counter>(
            "dapr_x_count",
            "x",
            LABELS,
            &["path"],
            &Rewrites::default(),
            (),
        );
        for n in 0..3 * MAX_SERIES {
            family.with(&["a", &format!("/{n}")]).inc();
        }
        family.with(&["a", "/7"]).inc();
        let text = registry.text();
        let lines: Vec<_> = text
            .lines()
            .filter(|l| l.starts_with("dapr_x_count{"))
            .collect();
        assert_eq!(lines.len(), MAX_SERIES + 1);
        assert!(text.contains("dapr_x_count{app_id=\"a\",path=\"/7\"} 2\n"));
        assert!(text.contains("dapr_x_count{app_id=\"a\",path=\"\"} 2000\n"));
    }

    #[test]
    fn values_that_a_rule_makes_equal_are_one_series() {
        let pairs = BTreeMap::from([("/orders/TEST".to_owned(), "/orders/.+".to_owned())]);
        for name in ["x_count", "dapr_x_count"] {
            let registry = Registry::new();
            let rewrites = Rewrites::compile([(name, "path", &pairs)]).unwrap();
            let family =
                registry.family::<Counter>("dapr_x_count", "x", LABELS, &[], &rewrites, ());
            family.with(&["a", "/orders/1"]).inc();
            family.with(&["a", "/orders/2"]).inc();
            let text = registry.text();
            assert!(
                text.contains("dapr_x_count{app_id=\"a\",path=\"/orders/TEST\"} 2\n"),
                "{text}"
            );
        }
        let broken = BTreeMap::from([("a".to_owned(), "(".to_owned())]);
        let error = Rewrites::compile([("x_count", "path", &broken)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("failed to compile regex for rule x/countpath/a: "),
            "{error}"
        );
    }
}
