//! The webhook over HTTP: one path, which answers reviews.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use outrider_crds::{annotations, app_id, decode};
use outrider_k8s::Client;
use outrider_security::TrustAnchors;
use outrider_telemetry::metrics::{Counter, Family, IntCounter, Registry, Rewrites};

use crate::cluster;
use crate::matcher::Matcher;
use crate::patch::{self, Pod, Settings, Situation};
use crate::review::{Request, Review, Verdict};

/// How much of a text of a review goes into a line of the log, and how much of a reason into an answer.
const SHOWN: usize = 128;
const REASON: usize = 1024;
/// Labels whose values are chosen by everybody who can create a pod or reach the webhook.
const OPEN: &[&str] = &["app_id"];

/// All that an admission needs.
pub struct Webhook {
    pub client: Client,
    pub settings: Settings,
    pub matcher: Matcher,
    pub anchors: TrustAnchors,
    pub metrics: Metrics,
}

pub struct Metrics {
    requests: IntCounter,
    succeeded: Family<Counter>,
    failed: Family<Counter>,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let name = |last: &str| format!("dapr_injector_sidecar_injection_{last}");
        Self {
            requests: registry.counter(
                &name("requests_total"),
                "The total number of sidecar injection requests.",
            ),
            succeeded: registry.family(
                &name("succeeded_total"),
                "The total number of successful sidecar injections.",
                OPEN,
                OPEN,
                &Rewrites::default(),
                (),
            ),
            failed: registry.family(
                &name("failed_total"),
                "The total number of failed sidecar injections.",
                &["app_id", "reason"],
                OPEN,
                &Rewrites::default(),
                (),
            ),
        }
    }
}

/// The app id as a label of metrics: empty if no application can have it.
fn label(app_id: &str) -> &str {
    app_id::service_name(app_id).map_or("", |_| app_id)
}

/// The beginning of a text that may be of any length.
fn beginning(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

pub fn router(webhook: Webhook) -> Router {
    Router::new()
        .route("/mutate", any(mutate))
        // The listener has a limit of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(webhook))
}

async fn mutate(
    State(webhook): State<Arc<Webhook>>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    webhook.metrics.requests.inc();
    let body = match body {
        Ok(body) if !body.is_empty() => body,
        Ok(_) => return plain(StatusCode::BAD_REQUEST, "empty body\n"),
        Err(rejection) => return rejection.into_response(),
    };
    if headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.as_bytes())
        != Some(b"application/json")
    {
        let expected = "invalid Content-Type, expected `application/json`\n";
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, expected);
    }
    let answer = match Review::parse(&body) {
        Ok(review) => review.answer(&webhook.review(review.request.as_ref()).await),
        Err(error) => Review::default().answer(&webhook.refused("", &error.to_string())),
    };
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/json")],
        answer.to_string(),
    )
        .into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    )
        .into_response()
}

impl Webhook {
    async fn review(&self, request: Option<&Request>) -> Verdict {
        let Some(request) = request else {
            return self.refused("", "the review has no request");
        };
        if request.kind.kind != "Pod" {
            tracing::error!(target: "dapr.injector.service", "invalid kind for review: {}", beginning(&request.kind.kind, SHOWN));
            return self.untouched(&request.name);
        }
        if request.object.is_null() {
            return self.refused(
                &request.name,
                "could not unmarshal raw object: unexpected end of JSON input",
            );
        }
        let pod: Pod = match decode::from_value(&request.object) {
            Ok(pod) => pod,
            Err(error) => {
                return self.refused(
                    &request.name,
                    &format!("could not unmarshal raw object: {error}"),
                );
            }
        };
        if !patch::wants_sidecar(&pod.metadata.annotations) {
            return Verdict::Unchanged;
        }
        let app_id = pod.app_id();
        if !self
            .matcher
            .allows(&request.user.username, &request.user.groups)
        {
            let user = beginning(&request.user.username, SHOWN);
            tracing::error!(target: "dapr.injector.service", "service account '{user}' not on the list of allowed controller accounts");
            return self.untouched(app_id);
        }
        let shown = |text| beginning(text, SHOWN);
        tracing::info!(target: "dapr.injector.service", "AdmissionReview for Kind={}, Namespace={} Name={} ({}) UID={} patchOperation={} UserInfo={}", request.kind.kind, shown(&request.namespace), shown(&request.name), shown(app_id), shown(&request.uid), shown(&request.operation), shown(&request.user.username));
        match self.patch(&pod, request).await {
            Ok(patch) if patch.operations.is_empty() => Verdict::Unchanged,
            Ok(patch::Patch {
                operations,
                warnings,
            }) => {
                tracing::info!(target: "dapr.injector.service", "Sidecar injector succeeded injection for app '{app_id}'");
                self.metrics.succeeded.with(&[label(app_id)]).inc();
                Verdict::Patched {
                    operations,
                    warnings,
                }
            }
            Err(error) => self.refused(app_id, &error),
        }
    }

    async fn patch(&self, pod: &Pod, request: &Request) -> Result<patch::Patch, String> {
        let declared =
            match annotations::INJECT_PLUGGABLE_COMPONENTS.read(&pod.metadata.annotations) {
                true => cluster::declared(&self.client, &request.namespace)
                    .await
                    .map_err(|error| {
                        format!(
                            "error listing components of namespace {}: {error}",
                            request.namespace
                        )
                    })?,
                false => Vec::new(),
            };
        let anchors = self.anchors.current();
        let situation = Situation {
            settings: &self.settings,
            namespace: &request.namespace,
            mtls: cluster::mtls(&self.client, &self.settings.namespace).await,
            anchors: anchors.pem(),
            declared: &declared,
        };
        patch::patch(pod, &situation).map_err(|error| error.to_string())
    }

    /// Allows the pod without a sidecar, and counts it.
    fn untouched(&self, app_id: &str) -> Verdict {
        self.metrics
            .failed
            .with(&[label(app_id), "pod_patch"])
            .inc();
        Verdict::Unchanged
    }

    fn refused(&self, app_id: &str, why: &str) -> Verdict {
        let (shown, why) = (beginning(app_id, SHOWN), beginning(why, REASON));
        tracing::error!(target: "dapr.injector.service", "Sidecar injector failed to inject for app '{shown}'. Error: {why}");
        self.metrics.failed.with(&[label(app_id), "patch"]).inc();
        Verdict::Refused(why.to_owned())
    }
}
