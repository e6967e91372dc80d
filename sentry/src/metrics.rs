//! The metrics of sentry, under Dapr's names.

use outrider_telemetry::metrics::{IntCounter, IntCounterVec, IntGauge, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub received: IntCounter,
    pub success: IntCounter,
    failure: IntCounterVec,
    pub issuer_changed: IntCounter,
    /// Unix seconds.
    pub issuer_expiry: IntGauge,
    /// Unix seconds.
    pub root_expiry: IntGauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        Self {
            received: registry.counter(
                "dapr_sentry_cert_sign_request_received_total",
                "The number of CSRs received.",
            ),
            success: registry.counter(
                "dapr_sentry_cert_sign_success_total",
                "The number of certificates issued.",
            ),
            failure: registry.counters(
                "dapr_sentry_cert_sign_failure_total",
                "The number of requests that were not answered with a certificate.",
                &["reason"],
            ),
            issuer_changed: registry.counter(
                "dapr_sentry_issuercert_changed_total",
                "The number of times the issuer certificate or key changed.",
            ),
            issuer_expiry: registry.gauge(
                "dapr_sentry_issuercert_expiry_timestamp",
                "When the issuer certificate expires, in Unix seconds.",
            ),
            root_expiry: registry.gauge(
                "dapr_sentry_rootcert_expiry_timestamp",
                "When the root certificate that expires first does, in Unix seconds.",
            ),
        }
    }

    /// Dashboards know one reason for all causes; the log has the cause.
    pub fn failed(&self) {
        self.failure.with_label_values(&["sign"]).inc();
    }
}
