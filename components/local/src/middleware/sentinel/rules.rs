//! Rules as they stand in the metadata: JSON lists of objects.
//! <https://sentinelguard.io/en-us/docs/golang/basic-api-usage.html>

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How many requests of a resource pass in an interval.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Flow {
    pub resource: String,
    /// 0: as the threshold says.
    token_calculate_strategy: i32,
    /// 0: what is too much is refused. 1: it waits for its turn.
    control_behavior: i32,
    pub threshold: f64,
    /// 0: requests of the resource itself count. 1: those of `ref_resource`.
    relation_strategy: i32,
    ref_resource: String,
    pub max_queueing_time_ms: u32,
    /// A second if it is 0.
    stat_interval_in_ms: u32,
}

impl Flow {
    pub fn throttles(&self) -> bool {
        self.control_behavior == 1
    }

    /// The resource whose requests count.
    pub fn counted(&self) -> &str {
        match self.relation_strategy {
            0 => &self.resource,
            _ => &self.ref_resource,
        }
    }

    /// In milliseconds.
    pub fn interval(&self) -> u32 {
        match self.stat_interval_in_ms {
            0 => 1000,
            given => given,
        }
    }
}

/// What a circuit breaker looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    SlowRatio,
    ErrorRatio,
    ErrorCount,
}

/// When requests of a resource are refused for a while.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Breaker {
    pub resource: String,
    strategy: i32,
    pub retry_timeout_ms: u32,
    pub min_request_amount: u64,
    pub stat_interval_ms: u32,
    stat_sliding_window_bucket_count: u32,
    pub max_allowed_rt_ms: u64,
    pub threshold: f64,
    pub probe_num: u64,
}

impl Breaker {
    pub fn strategy(&self) -> Strategy {
        match self.strategy {
            0 => Strategy::SlowRatio,
            1 => Strategy::ErrorRatio,
            _ => Strategy::ErrorCount,
        }
    }

    pub fn buckets(&self) -> u32 {
        match self.stat_sliding_window_bucket_count {
            0 => 1,
            count if self.stat_interval_ms.is_multiple_of(count) => count,
            _ => 1,
        }
    }
}

/// How many requests of a resource may be under way.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Isolation {
    pub resource: String,
    metric_type: i32,
    pub threshold: u32,
}

/// What a rule of the whole sidecar is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Milliseconds that a request takes on the average.
    Time,
    Concurrency,
    /// Requests in a second.
    Requests,
}

/// When no request passes, whatever it is for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct System {
    metric_type: i32,
    pub trigger_count: f64,
}

impl System {
    pub fn metric(&self) -> Metric {
        match self.metric_type {
            1 => Metric::Time,
            2 => Metric::Concurrency,
            _ => Metric::Requests,
        }
    }
}

/// A kind of rule, and what one must be like.
pub trait Rule: DeserializeOwned {
    fn check(&self) -> Result<(), String>;
}

fn resource(name: &str) -> Result<(), String> {
    match name {
        "" => Err("has no resource".to_owned()),
        _ => Ok(()),
    }
}

/// Fails with `what` unless it holds.
fn holds(condition: bool, what: &str) -> Result<(), String> {
    match condition {
        true => Ok(()),
        false => Err(what.to_owned()),
    }
}

impl Rule for Flow {
    fn check(&self) -> Result<(), String> {
        resource(&self.resource)?;
        holds(self.threshold >= 0.0, "has a negative threshold")?;
        holds(
            self.token_calculate_strategy == 0,
            "has a tokenCalculateStrategy that is not supported: use 0 (direct)",
        )?;
        holds(
            matches!(self.control_behavior, 0 | 1),
            "has a controlBehavior other than 0 (reject) and 1 (throttling)",
        )?;
        holds(
            self.relation_strategy == 0
                || (self.relation_strategy == 1 && !self.ref_resource.is_empty()),
            "has a relationStrategy other than 0 (its own resource) and 1 (refResource)",
        )
    }
}

impl Rule for Breaker {
    fn check(&self) -> Result<(), String> {
        resource(&self.resource)?;
        holds(
            matches!(self.strategy, 0..=2),
            "has a strategy other than 0 (slow request ratio), 1 (error ratio) and 2 (error count)",
        )?;
        holds(self.stat_interval_ms > 0, "has no statIntervalMs")?;
        holds(self.retry_timeout_ms > 0, "has no retryTimeoutMs")?;
        let is_ratio = self.strategy() != Strategy::ErrorCount;
        holds(
            self.threshold >= 0.0 && !(is_ratio && self.threshold > 1.0),
            "has a threshold that is negative or a ratio above 1",
        )
    }
}

impl Rule for Isolation {
    fn check(&self) -> Result<(), String> {
        resource(&self.resource)?;
        holds(
            self.metric_type == 0,
            "has a metricType other than 0 (concurrency)",
        )?;
        holds(self.threshold > 0, "has no threshold")
    }
}

impl Rule for System {
    fn check(&self) -> Result<(), String> {
        holds(self.trigger_count >= 0.0, "has a negative triggerCount")?;
        holds(
            matches!(self.metric_type, 1..=3),
            "has a metricType that is not supported: use 1 (average time), 2 (concurrency) or 3 (requests in a second)",
        )
    }
}

/// The rules of a list.
pub fn read<R: Rule>(text: Option<&str>) -> Result<Vec<R>, String> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let rules: Vec<Value> = serde_json::from_str(text)
        .map_err(|cause| format!("is not a JSON list of rules: {cause}"))?;
    let numbered = rules.into_iter().enumerate();
    let read = numbered.map(|(at, rule)| {
        let rule: R = serde_json::from_value(rule)
            .map_err(|cause| format!("has a rule {} that cannot be read: {cause}", at + 1))?;
        rule.check()
            .map_err(|what| format!("is wrong: rule {} {what}", at + 1))?;
        Ok(rule)
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_checked_and_further_members_ignored() {
        let flow = r#"[{"resource": "GET:/a", "threshold": 10, "more": 1}]"#;
        let rules: Vec<Flow> = read(Some(flow)).expect("valid");
        assert_eq!((rules[0].threshold, rules[0].interval()), (10.0, 1000));
        for wrong in [
            "{",
            "{}",
            "[1]",
            r#"[{"threshold": 1}]"#,
            r#"[{"resource": "a", "threshold": -1}]"#,
            r#"[{"resource": "a", "tokenCalculateStrategy": 1}]"#,
            r#"[{"resource": "a", "controlBehavior": 2}]"#,
            r#"[{"resource": "a", "relationStrategy": 1}]"#,
            r#"[{"resource": "a", "statIntervalInMs": -1}]"#,
        ] {
            assert!(read::<Flow>(Some(wrong)).is_err(), "{wrong}");
        }
        for wrong in [
            r#"[{"resource": "a", "statIntervalMs": 1}]"#,
            r#"[{"resource": "a", "statIntervalMs": 1, "retryTimeoutMs": 1, "threshold": 1.5}]"#,
            r#"[{"resource": "a", "statIntervalMs": 1, "retryTimeoutMs": 1, "strategy": 3}]"#,
        ] {
            assert!(read::<Breaker>(Some(wrong)).is_err(), "{wrong}");
        }
        assert!(read::<Isolation>(Some(r#"[{"resource": "a"}]"#)).is_err());
        let error = read::<System>(Some(r#"[{"metricType": 3}, {}]"#)).expect_err("load");
        assert!(
            error.starts_with("is wrong: rule 2 has a metricType"),
            "{error}"
        );
        assert!(read::<System>(None).expect("none").is_empty());
    }
}
