//! `Resiliency`: timeouts, retries and circuit breakers, and what they apply to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Kind, Metadata, unset};

/// Timeouts, retries and circuit breakers, and what they apply to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Resiliency {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
    /// App ids that the policies are for; empty means every app of the namespace.
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
}

/// Policies by name, and targets that use them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "ResiliencySpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub policies: Policies,
    pub targets: Targets,
}

/// Policies by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Policies {
    /// Durations, such as `5s`.
    #[serde(skip_serializing_if = "unset")]
    pub timeouts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "unset")]
    pub retries: BTreeMap<String, Retry>,
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breakers: BTreeMap<String, CircuitBreaker>,
}

/// How often, and after which wait, a call is tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Retry {
    /// `constant` or `exponential`.
    #[serde(skip_serializing_if = "unset")]
    pub policy: String,
    /// Wait of the constant policy.
    #[serde(skip_serializing_if = "unset")]
    pub duration: String,
    /// Longest wait of the exponential policy.
    #[serde(skip_serializing_if = "unset")]
    pub max_interval: String,
    /// Negative for no end.
    #[serde(skip_serializing_if = "unset")]
    pub max_retries: Option<i64>,
    /// Which failures are tried again; all unless given.
    #[serde(skip_serializing_if = "unset")]
    pub matching: Option<RetryMatching>,
}

/// Which failures are tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct RetryMatching {
    /// Codes and ranges, such as `429,500-599`.
    #[serde(rename = "httpStatusCodes", skip_serializing_if = "unset")]
    pub http_status_codes: String,
    /// Codes and ranges, such as `4,8-14`.
    #[serde(rename = "gRPCStatusCodes", skip_serializing_if = "unset")]
    pub grpc_status_codes: String,
}

/// When calls are cut off, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Calls let through while half open.
    #[serde(skip_serializing_if = "unset")]
    pub max_requests: i64,
    /// Period after which counts are cleared while closed.
    #[serde(skip_serializing_if = "unset")]
    pub interval: String,
    /// Time from open to half open.
    #[serde(skip_serializing_if = "unset")]
    pub timeout: String,
    /// CEL expression that opens it, such as `consecutiveFailures > 5`.
    #[serde(skip_serializing_if = "unset")]
    pub trip: String,
}

/// What policies apply to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Targets {
    /// By app id.
    #[serde(skip_serializing_if = "unset")]
    pub apps: BTreeMap<String, AppTarget>,
    /// By actor type.
    #[serde(skip_serializing_if = "unset")]
    pub actors: BTreeMap<String, ActorTarget>,
    /// By component name.
    #[serde(skip_serializing_if = "unset")]
    pub components: BTreeMap<String, ComponentTarget>,
}

/// Names of the policies for calls to an app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AppTarget {
    #[serde(skip_serializing_if = "unset")]
    pub timeout: String,
    #[serde(skip_serializing_if = "unset")]
    pub retry: String,
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breaker: String,
    /// How many breakers, one per endpoint, are kept.
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breaker_cache_size: i64,
}

/// Names of the policies for calls to actors of a type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ActorTarget {
    #[serde(skip_serializing_if = "unset")]
    pub timeout: String,
    #[serde(skip_serializing_if = "unset")]
    pub retry: String,
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breaker: String,
    /// `type`, `id` or `both`.
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breaker_scope: String,
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breaker_cache_size: i64,
}

/// Policies of a component, by direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ComponentTarget {
    #[serde(skip_serializing_if = "unset")]
    pub inbound: PolicyNames,
    #[serde(skip_serializing_if = "unset")]
    pub outbound: PolicyNames,
}

/// Names of policies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyNames {
    #[serde(skip_serializing_if = "unset")]
    pub timeout: String,
    #[serde(skip_serializing_if = "unset")]
    pub retry: String,
    #[serde(skip_serializing_if = "unset")]
    pub circuit_breaker: String,
}

impl Kind for Resiliency {
    const KIND: &'static str = "Resiliency";
    const PLURAL: &'static str = "resiliencies";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;

    #[test]
    fn policies_and_targets_are_read() {
        let resiliency: Resiliency = decode::from_value(&json!({"spec": {
            "policies": {"retries": {"r": {"maxRetries": -1, "matching": {"httpStatusCodes": 500, "gRPCStatusCodes": "1-4"}}}},
            "targets": {"components": {"c": {"outbound": {"circuitBreaker": "b"}}}},
        }}))
        .unwrap();
        let retry = &resiliency.spec.policies.retries["r"];
        assert_eq!(retry.max_retries, Some(-1));
        let matching = retry.matching.as_ref().unwrap();
        assert_eq!(
            (
                matching.http_status_codes.as_str(),
                matching.grpc_status_codes.as_str()
            ),
            ("500", "1-4")
        );
        assert_eq!(
            resiliency.spec.targets.components["c"]
                .outbound
                .circuit_breaker,
            "b"
        );
    }
}
