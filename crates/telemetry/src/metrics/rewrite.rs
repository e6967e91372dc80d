//! Rules that rewrite the values of labels.
//! <https://docs.dapr.io/operations/observability/metrics/metrics-overview/#transform-metrics-with-regular-expressions>

use std::collections::HashMap;
use std::sync::Arc;

use regex::Regex;

/// A rule whose pattern is not a valid regular expression.
#[derive(Debug, thiserror::Error)]
#[error("failed to compile regex for rule {metric}{label}/{replacement}: {cause}")]
pub struct BadRule {
    metric: String,
    label: String,
    replacement: String,
    cause: regex::Error,
}

/// Patterns with what takes the place of their matches.
pub(super) type Patterns = Vec<(Regex, String)>;

/// All rules, by metric and label. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Rewrites(Arc<HashMap<(String, String), Patterns>>);

impl Rewrites {
    /// Every rule is a metric, a label, and pairs of replacement and pattern.
    pub fn compile<'a, P>(
        rules: impl IntoIterator<Item = (&'a str, &'a str, P)>,
    ) -> Result<Self, BadRule>
    where
        P: IntoIterator<Item = (&'a String, &'a String)>,
    {
        let mut all = HashMap::new();
        for (metric, label, pairs) in rules {
            let mut patterns = Patterns::new();
            for (replacement, pattern) in pairs {
                let regex = Regex::new(pattern).map_err(|cause| BadRule {
                    metric: plain(metric).replace('_', "/"),
                    label: label.to_owned(),
                    replacement: replacement.clone(),
                    cause,
                })?;
                patterns.push((regex, replacement.clone()));
            }
            all.insert((plain(metric), label.to_owned()), patterns);
        }
        Ok(Self(Arc::new(all)))
    }

    pub(super) fn of(&self, metric: &str, label: &str) -> Patterns {
        let key = (plain(metric), label.to_owned());
        self.0.get(&key).cloned().unwrap_or_default()
    }
}

/// A name as rules may write it: with or without the prefix.
fn plain(metric: &str) -> String {
    metric
        .strip_prefix("dapr_")
        .unwrap_or(metric)
        .replace(['/', '.'], "_")
}

/// The value of a label after the rules; an empty one stays empty.
pub(super) fn apply(patterns: &Patterns, value: &str) -> String {
    let mut value = value.to_owned();
    if value.is_empty() {
        return value;
    }
    for (pattern, replacement) in patterns {
        value = pattern
            .replace_all(&value, replacement.as_str())
            .into_owned();
    }
    value
}
