//! The `metric` part of a Configuration.
//! <https://docs.dapr.io/operations/configuration/configuration-overview/#metrics>

use std::sync::Arc;

use outrider_crds::configuration::{Metrics, Spec};
use outrider_telemetry::metrics::{BadRule, Buckets, Rewrites};

use super::label::Paths;

const SCOPE: &str = "dapr.runtime.diagnostics";
const LATENCIES: [i64; 34] = [
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400,
    500, 650, 800, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];

/// `metric` with what `metrics` says instead.
pub fn merged(spec: &Spec) -> Metrics {
    let mut merged = spec.metric.clone().unwrap_or_default();
    if let Some(over) = spec.metrics.clone() {
        merged.enabled = over.enabled.or(merged.enabled);
        merged.record_error_codes = over.record_error_codes.or(merged.record_error_codes);
        merged.http = over.http.or(merged.http);
        merged.latency_distribution_buckets = over
            .latency_distribution_buckets
            .or(merged.latency_distribution_buckets);
        merged.workflow = over.workflow.or(merged.workflow);
        if !over.rules.is_empty() {
            merged.rules = over.rules;
        }
    }
    merged.enabled.get_or_insert(true);
    merged
}

pub fn rewrites(spec: &Metrics) -> Result<Rewrites, BadRule> {
    Rewrites::compile(spec.rules.iter().flat_map(|rule| {
        rule.labels
            .iter()
            .map(|label| (rule.name.as_str(), label.name.as_str(), &label.regex))
    }))
}

/// The bounds of latencies, in milliseconds; they are logged.
pub fn latencies(spec: &Metrics) -> Arc<Buckets> {
    let shown = serde_json::to_string(spec).unwrap_or_default();
    tracing::info!(target: SCOPE, "metric spec: {shown}");
    let custom = spec.latency_distribution_buckets.as_deref();
    let (kind, bounds) = match custom.filter(|bounds| !bounds.is_empty()) {
        Some(bounds) => ("custom", bounds),
        None => ("default", &LATENCIES[..]),
    };
    let texts: Vec<String> = bounds.iter().map(i64::to_string).collect();
    tracing::info!(target: SCOPE, "Using {kind} latency distribution buckets: [{}]", texts.join(" "));
    let bounds: Vec<u64> = bounds
        .iter()
        .filter_map(|b| u64::try_from(*b).ok())
        .collect();
    Buckets::milliseconds(&bounds)
}

pub fn paths(spec: &Metrics) -> Paths {
    let http = spec.http.clone().unwrap_or_default();
    let increased = http.increased_cardinality.unwrap_or_else(|| {
        tracing::warn!(target: SCOPE, "The default value for 'spec.metric.http.increasedCardinality' will change to 'false' in Dapr 1.15 or later");
        true
    });
    Paths::new(increased, &http.path_matching)
}

pub fn excludes_verbs(spec: &Metrics) -> bool {
    let http = spec.http.as_ref();
    http.and_then(|http| http.exclude_verbs).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use outrider_crds::configuration::HttpMetrics;

    use super::*;

    #[test]
    fn the_newer_word_wins_field_by_field() {
        let old = Metrics {
            enabled: Some(false),
            record_error_codes: Some(true),
            http: Some(HttpMetrics {
                increased_cardinality: Some(false),
                ..HttpMetrics::default()
            }),
            ..Metrics::default()
        };
        let new = Metrics {
            enabled: Some(true),
            http: Some(HttpMetrics::default()),
            ..Metrics::default()
        };
        let merged = merged(&Spec {
            metric: Some(old),
            metrics: Some(new),
            ..Spec::default()
        });
        assert_eq!(
            (merged.enabled, merged.record_error_codes),
            (Some(true), Some(true))
        );
        assert!(paths(&merged).increased);
        assert_eq!(super::merged(&Spec::default()).enabled, Some(true));
    }
}
