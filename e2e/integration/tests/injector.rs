//! The webhook with malformed and oversized requests.

use anyhow::Result;
use outrider_harness::http::Client as Page;
use outrider_harness::{Injector, Sentry};
use reqwest::{Client, Response};
use serde_json::{Value, json};

struct Webhook {
    client: Client,
    url: String,
    injector: Injector,
    _sentry: Sentry,
}

impl Webhook {
    async fn start() -> Result<Webhook> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let sentry = Sentry::start().await?;
        let injector = Injector::start(&sentry).await?;
        let address = ([127, 0, 0, 1], injector.port()).into();
        let anchors = reqwest::Certificate::from_pem_bundle(sentry.anchors()?.as_bytes())?;
        let client = Client::builder()
            .tls_certs_only(anchors)
            .resolve(Injector::NAME, address)
            .build()?;
        Ok(Webhook {
            client,
            url: format!("https://{}:{}/mutate", Injector::NAME, injector.port()),
            injector,
            _sentry: sentry,
        })
    }

    async fn post(&self, kind: &str, body: impl Into<reqwest::Body>) -> Result<Response> {
        let request = self.client.post(&self.url).header("content-type", kind);
        Ok(request.body(body).send().await?)
    }

    /// The answer to a pod with these annotations besides those that every
    /// injected pod has.
    async fn admit(&self, annotations: &[(&str, &str)]) -> Result<Value> {
        let mut pod = json!({
            "metadata": {"name": "p", "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "app"}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        for (name, value) in annotations {
            pod["metadata"]["annotations"][*name] = json!(value);
        }
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u",
                "kind": {"kind": "Pod"},
                "namespace": "default",
                "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
                "object": pod,
            },
        });
        let answer = self.post("application/json", review.to_string()).await?;
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        Ok(answer["response"].clone())
    }
}

#[tokio::test]
async fn malformed_reviews_are_answered() -> Result<()> {
    let webhook = Webhook::start().await?;
    for (body, expected) in [
        ("this is not JSON", "json parse error"),
        ("[]", "not an object"),
        (r#"{"kind": "AdmissionReview"}"#, "no request"),
        (
            r#"{"request": {"kind": {"kind": "Pod"}, "object": "x"}}"#,
            "could not unmarshal",
        ),
    ] {
        let answer = webhook.post("application/json", body).await?;
        let status = answer.status();
        let text = answer.text().await?;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains(expected), "{body}: {text}");
        assert!(text.contains(r#""allowed":false"#), "{text}");
    }
    let refused = webhook.post("text/plain", "{}").await?;
    assert_eq!(refused.status(), 415);
    let empty = webhook.post("application/json", "").await?;
    assert_eq!(empty.status(), 400);

    let response = webhook.admit(&[("dapr.io/app-port", "http")]).await?;
    assert_eq!(response["allowed"], json!(false), "{response}");
    let message = response["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("dapr.io/app-port"), "{message}");

    let response = webhook.admit(&[]).await?;
    assert_eq!(response["allowed"], json!(true), "{response}");
    assert!(response["patch"].is_string(), "{response}");
    assert!(webhook.injector.status().is_none());
    Ok(())
}

#[tokio::test]
async fn a_review_that_is_too_large_is_refused() -> Result<()> {
    let webhook = Webhook::start().await?;
    let before = webhook.injector.memory()?;
    // The connection may be cut before all of it is sent.
    if let Ok(answer) = webhook.post("application/json", vec![b' '; 64 << 20]).await {
        assert!(answer.status().is_client_error(), "{}", answer.status());
    }
    let response = webhook.admit(&[]).await?;
    assert_eq!(response["allowed"], json!(true), "{response}");
    let grown = webhook.injector.memory()?.saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more");
    Ok(())
}

#[tokio::test]
async fn the_number_of_app_ids_in_the_metrics_is_limited() -> Result<()> {
    let webhook = Webhook::start().await?;
    let long = "x".repeat(200_000);
    webhook.admit(&[("dapr.io/app-id", &long)]).await?;
    for n in 0..1100 {
        let app_id = format!("app-{n}");
        webhook.admit(&[("dapr.io/app-id", &app_id)]).await?;
    }
    let page = Page::new(webhook.injector.metrics_port());
    let text = page.get("/metrics").await?.text();
    let series = text
        .lines()
        .filter(|line| line.starts_with("dapr_injector_sidecar_injection_succeeded_total{"));
    assert_eq!(series.count(), 1001);
    let longest = text.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 500, "a line of {longest} bytes");
    let lines = webhook.injector.lines();
    let longest = lines.iter().map(String::len).max().unwrap_or_default();
    assert!(longest < 2000, "a line of {longest} bytes in the log");
    Ok(())
}

#[tokio::test]
async fn an_annotation_that_is_left_empty_counts_as_absent() -> Result<()> {
    let webhook = Webhook::start().await?;
    let response = webhook
        .admit(&[
            ("dapr.io/app-port", ""),
            ("dapr.io/grpc-port", " "),
            ("dapr.io/env-from-secret", "A=s: k"),
        ])
        .await?;
    assert_eq!(response["allowed"], json!(true), "{response}");
    Ok(())
}
