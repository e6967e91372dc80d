//! `Configuration`: how a sidecar behaves, and, under the name `daprsystem`, the control plane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::property::NameValue;
use crate::{Kind, Metadata, unset};

/// How a sidecar behaves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Configuration {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
}

/// One block per concern; each may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "ConfigurationSpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Middleware for requests that the app sends out.
    #[serde(skip_serializing_if = "unset")]
    pub app_http_pipeline: Option<Pipeline>,
    /// Middleware for requests to the sidecar's API.
    #[serde(skip_serializing_if = "unset")]
    pub http_pipeline: Option<Pipeline>,
    #[serde(skip_serializing_if = "unset")]
    pub tracing: Option<Tracing>,
    /// The older name of `metrics`.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(extend("x-default" = {"enabled": true})))]
    pub metric: Option<Metrics>,
    /// Each field given here wins over the same one of `metric`.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(extend("x-default" = {"enabled": true})))]
    pub metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "unset")]
    pub mtls: Option<Mtls>,
    #[serde(skip_serializing_if = "unset")]
    pub secrets: Option<Secrets>,
    /// Who may invoke this app.
    #[serde(skip_serializing_if = "unset")]
    pub access_control: Option<AccessControl>,
    #[serde(skip_serializing_if = "unset")]
    pub name_resolution: Option<NameResolution>,
    /// Feature flags.
    #[serde(skip_serializing_if = "unset")]
    pub features: Vec<Feature>,
    /// Which parts of the API are served.
    #[serde(skip_serializing_if = "unset")]
    pub api: Option<Api>,
    #[serde(skip_serializing_if = "unset")]
    pub components: Option<Components>,
    #[serde(skip_serializing_if = "unset")]
    pub logging: Option<Logging>,
    #[serde(skip_serializing_if = "unset")]
    pub wasm: Option<Wasm>,
    #[serde(skip_serializing_if = "unset")]
    pub workflow: Option<Workflow>,
}

/// A chain of middleware.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Pipeline {
    /// In the order in which a request passes them.
    pub handlers: Vec<Handler>,
}

/// A middleware of a chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Handler {
    /// Name of the component.
    pub name: String,
    /// Type of the component.
    #[serde(rename = "type")]
    pub handler_type: String,
    /// Version of the component; not part of the cluster's schema.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub version: String,
    #[serde(skip_serializing_if = "unset")]
    pub selector: Option<Selector>,
}

/// Which requests a middleware is for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    pub fields: Vec<SelectorField>,
}

/// A condition of a selector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct SelectorField {
    pub field: String,
    pub value: String,
}

/// Where spans go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Tracing {
    /// Share of traces that is kept: a number from 0 to 1.
    pub sampling_rate: String,
    /// Writes spans to the log.
    #[serde(skip_serializing_if = "unset")]
    pub stdout: bool,
    #[serde(skip_serializing_if = "unset")]
    pub zipkin: Option<Zipkin>,
    #[serde(skip_serializing_if = "unset")]
    pub otel: Option<Otel>,
}

/// A Zipkin collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Zipkin {
    /// Whole URL.
    pub endpoint_address: String,
}

/// An OpenTelemetry collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Otel {
    /// `http` or `grpc`.
    pub protocol: String,
    /// `host:port`.
    pub endpoint_address: String,
    /// TLS towards the collector; true unless given.
    pub is_secure: Option<bool>,
    /// Headers of each export.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<NameValue>"))]
    pub headers: Vec<Header>,
    /// Limit for an export, such as `10s`.
    #[serde(skip_serializing_if = "unset")]
    pub timeout: String,
}

/// A header of exports: in files `name=value`, in a cluster an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Header {
    Text(String),
    Object(NameValue),
}

impl Header {
    /// Name and value; nothing if a text has no `=`.
    pub fn pair(&self) -> Option<(String, String)> {
        match self {
            Self::Text(text) => text
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            Self::Object(object) => Some((object.name.clone(), object.text())),
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Metrics {
    /// True unless given.
    pub enabled: Option<bool>,
    /// Counts error codes.
    #[serde(skip_serializing_if = "unset")]
    pub record_error_codes: Option<bool>,
    #[serde(skip_serializing_if = "unset")]
    pub http: Option<HttpMetrics>,
    /// Limits of the latency histograms, in milliseconds.
    #[serde(skip_serializing_if = "unset")]
    pub latency_distribution_buckets: Option<Vec<i64>>,
    /// Rewrites labels.
    #[serde(skip_serializing_if = "unset")]
    pub rules: Vec<MetricRule>,
    #[serde(skip_serializing_if = "unset")]
    pub workflow: Option<WorkflowMetrics>,
}

/// Labels of the metrics of HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMetrics {
    /// One series per path.
    #[serde(skip_serializing_if = "unset")]
    pub increased_cardinality: Option<bool>,
    /// Path templates that paths are counted under.
    #[serde(skip_serializing_if = "unset")]
    pub path_matching: Vec<String>,
    /// Leaves the method label empty.
    #[serde(skip_serializing_if = "unset")]
    pub exclude_verbs: Option<bool>,
}

/// Rewrites the labels of one metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct MetricRule {
    /// Name of the metric.
    pub name: String,
    pub labels: Vec<MetricLabel>,
}

/// Rewrites one label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct MetricLabel {
    /// Name of the label.
    pub name: String,
    /// From replacement to pattern.
    pub regex: BTreeMap<String, String>,
}

/// Histograms of workflows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct WorkflowMetrics {
    #[serde(skip_serializing_if = "unset")]
    pub latency_distribution_buckets: Option<Vec<i64>>,
    /// Unit of the limits, such as `1ms`.
    #[serde(skip_serializing_if = "unset")]
    pub latency_distribution_units: String,
}

/// Identities of workloads; read by the control plane only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Mtls {
    /// True unless given.
    pub enabled: Option<bool>,
    /// Life of a workload's certificate, such as `24h`.
    #[serde(rename = "workloadCertTTL", skip_serializing_if = "unset")]
    pub workload_cert_ttl: String,
    /// How much clocks may differ, such as `15m`.
    #[serde(skip_serializing_if = "unset")]
    pub allowed_clock_skew: String,
    /// `host:port` of sentry.
    pub sentry_address: String,
    pub control_plane_trust_domain: String,
    /// Further ways to prove who a workload is.
    #[serde(skip_serializing_if = "unset")]
    pub token_validators: Vec<TokenValidator>,
}

/// A way to prove who a workload is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct TokenValidator {
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["jwks"])))]
    pub name: String,
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-preserve-unknown-fields" = true)))]
    pub options: Map<String, Value>,
}

/// Which secrets the app may read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Secrets {
    pub scopes: Vec<SecretScope>,
}

/// Which secrets of one store the app may read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct SecretScope {
    pub store_name: String,
    /// `allow` or `deny`; allow unless given.
    #[serde(skip_serializing_if = "unset")]
    pub default_access: String,
    #[serde(skip_serializing_if = "unset")]
    pub allowed_secrets: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub denied_secrets: Vec<String>,
}

/// Who may invoke this app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AccessControl {
    /// `allow` or `deny`. Left out, it is `allow`. An empty text is `deny`, except with an empty list of policies.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(skip_serializing_if = "unset")]
    pub default_action: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub trust_domain: String,
    #[serde(skip_serializing_if = "unset")]
    pub policies: Vec<AppPolicy>,
}

/// What one calling app may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AppPolicy {
    pub app_id: String,
    #[serde(skip_serializing_if = "unset")]
    pub default_action: String,
    #[serde(skip_serializing_if = "unset")]
    pub trust_domain: String,
    #[serde(skip_serializing_if = "unset")]
    pub namespace: String,
    #[serde(skip_serializing_if = "unset")]
    pub operations: Vec<Operation>,
}

/// A path and its verbs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// Path, with `*` as wildcard.
    pub name: String,
    #[serde(skip_serializing_if = "unset")]
    pub http_verb: Vec<String>,
    /// `allow` or `deny`.
    pub action: String,
}

/// How app ids become addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NameResolution {
    /// Resolver, such as `mdns`.
    pub component: String,
    pub version: String,
    /// The resolver's own settings.
    #[cfg_attr(
        feature = "schema",
        schemars(extend("type" = "object", "x-kubernetes-preserve-unknown-fields" = true))
    )]
    pub configuration: Value,
}

/// A feature flag.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Feature {
    pub name: String,
    pub enabled: bool,
}

/// Which parts of the API are served; everything unless something is allowed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Api {
    #[serde(skip_serializing_if = "unset")]
    pub allowed: Vec<ApiRule>,
    #[serde(skip_serializing_if = "unset")]
    pub denied: Vec<ApiRule>,
}

/// A part of the API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ApiRule {
    /// Group, such as `state`.
    pub name: String,
    /// Such as `v1.0`.
    pub version: String,
    /// `http` or `grpc`; both unless given.
    #[serde(skip_serializing_if = "unset")]
    pub protocol: String,
}

/// Which components may be loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Components {
    /// `type` or `type/version`.
    #[serde(skip_serializing_if = "unset")]
    pub deny: Vec<String>,
}

/// What is logged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Logging {
    #[serde(skip_serializing_if = "unset")]
    pub api_logging: Option<ApiLogging>,
}

/// One line per call of the API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ApiLogging {
    #[serde(skip_serializing_if = "unset")]
    pub enabled: Option<bool>,
    /// Logs the route rather than the path.
    #[serde(rename = "obfuscateURLs", skip_serializing_if = "unset")]
    pub obfuscate_urls: bool,
    #[serde(skip_serializing_if = "unset")]
    pub omit_health_checks: bool,
}

/// WebAssembly components.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Wasm {
    #[serde(skip_serializing_if = "unset")]
    pub strict_sandbox: bool,
}

/// Limits of the workflow engine; nothing, zero and negative numbers mean none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Workflow {
    /// Of one sidecar.
    #[serde(skip_serializing_if = "unset")]
    pub max_concurrent_workflow_invocations: i32,
    /// Of one sidecar.
    #[serde(skip_serializing_if = "unset")]
    pub max_concurrent_activity_invocations: i32,
    /// Of all sidecars of the app.
    #[serde(skip_serializing_if = "unset")]
    pub global_max_concurrent_workflow_invocations: Option<i32>,
    /// Of all sidecars of the app.
    #[serde(skip_serializing_if = "unset")]
    pub global_max_concurrent_activity_invocations: Option<i32>,
    #[serde(skip_serializing_if = "unset")]
    pub workflow_concurrency_limits: Vec<ConcurrencyLimit>,
    #[serde(skip_serializing_if = "unset")]
    pub activity_concurrency_limits: Vec<ConcurrencyLimit>,
    #[serde(skip_serializing_if = "unset")]
    pub state_retention_policy: Option<StateRetentionPolicy>,
}

/// Limit of one workflow or activity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ConcurrencyLimit {
    #[serde(skip_serializing_if = "unset")]
    pub name: String,
    #[serde(skip_serializing_if = "unset")]
    pub max_concurrent: Option<i32>,
}

/// How long the state of ended workflows is kept, as durations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct StateRetentionPolicy {
    #[serde(skip_serializing_if = "unset")]
    pub any_terminal: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub completed: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub failed: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub terminated: Option<String>,
}

impl Kind for Configuration {
    const KIND: &'static str = "Configuration";
    const PLURAL: &'static str = "configurations";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The kind has none.
    fn scopes(&self) -> &[String] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;

    #[test]
    fn headers_are_texts_or_objects() {
        let configuration: Configuration = decode::from_value(&json!({"spec": {"tracing": {
            "samplingRate": 1,
            "otel": {"endpointAddress": "a:1", "headers": ["a=b=c", {"name": "x", "value": "y"}]},
        }}}))
        .unwrap();
        let tracing = configuration.spec.tracing.unwrap();
        assert_eq!(tracing.sampling_rate, "1");
        let otel = tracing.otel.unwrap();
        assert_eq!(otel.is_secure, None);
        let pairs: Vec<_> = otel.headers.iter().filter_map(Header::pair).collect();
        assert_eq!(
            pairs,
            [
                ("a".to_owned(), "b=c".to_owned()),
                ("x".to_owned(), "y".to_owned())
            ]
        );
    }

    #[test]
    fn acronyms_keep_their_letters_in_field_names() {
        let configuration: Configuration = decode::from_value(&json!({"spec": {
            "mtls": {"workloadCertTTL": "1h"},
            "logging": {"apiLogging": {"obfuscateURLs": true}},
        }}))
        .unwrap();
        assert_eq!(configuration.spec.mtls.unwrap().workload_cert_ttl, "1h");
        assert!(
            configuration
                .spec
                .logging
                .unwrap()
                .api_logging
                .unwrap()
                .obfuscate_urls
        );
    }
}
