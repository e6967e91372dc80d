//! Whole requests, with an API server that has one Configuration.

use axum::body::{Body, to_bytes};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Request as HttpRequest;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::flags::Flags;

/// A root that signs nothing.
const ROOT: &str = include_str!("../../tests/root.pem");

async fn api_server(mtls: Option<bool>) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut router = Router::new();
    if let Some(enabled) = mtls {
        let configuration = json!({"spec": {"mtls": {"enabled": enabled}}}).to_string();
        let path = "/apis/dapr.io/v1alpha1/namespaces/dapr-system/configurations/daprsystem";
        router = router.route(path, get(|| async move { configuration }));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's runtime.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::try_from(kube::Config::new(
        format!("http://{address}").parse().unwrap(),
    ))
    .unwrap()
}

struct Fixture {
    router: Router,
    registry: Registry,
}

async fn fixture(mtls: Option<bool>) -> Fixture {
    let environment = |name: &str| match name {
        "NAMESPACE" => Some("dapr-system".to_owned()),
        "SIDECAR_IMAGE" => Some("image".to_owned()),
        _ => None,
    };
    let registry = Registry::new();
    let router = router(Webhook {
        client: api_server(mtls).await,
        settings: Flags::parse([], environment, "", true).unwrap().settings,
        matcher: Matcher::new(&[]).unwrap(),
        anchors: TrustAnchors::from_pem(ROOT).unwrap(),
        metrics: Metrics::new(&registry),
    });
    Fixture { router, registry }
}

impl Fixture {
    async fn post(&self, content_type: &str, body: String) -> (StatusCode, String) {
        let request = HttpRequest::post("/mutate")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(body));
        let response = self.router.clone().oneshot(request.unwrap()).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn review(&self, edit: impl FnOnce(&mut Value)) -> Value {
        let mut review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"kind": "Pod"}, "namespace": "default",
                "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
                "object": {
                    "metadata": {"annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "app"}},
                    "spec": {"containers": [{"name": "app"}]},
                },
            },
        });
        edit(&mut review["request"]);
        let (status, body) = self.post("application/json", review.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&answer["kind"], &answer["response"]["uid"]),
            (&json!("AdmissionReview"), &json!("u"))
        );
        answer["response"].clone()
    }

    /// Our metrics that are not zero.
    fn metrics(&self) -> Vec<String> {
        let text = self.registry.text();
        let ours = text
            .lines()
            .filter_map(|line| line.strip_prefix("dapr_injector_sidecar_injection_"));
        ours.filter(|line| !line.ends_with(" 0"))
            .map(str::to_owned)
            .collect()
    }
}

fn patch_of(response: &Value) -> String {
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch")),
        "{response}"
    );
    String::from_utf8(BASE64.decode(response["patch"].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_pod_gets_its_sidecar() {
    for (mtls, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
        let fixture = fixture(mtls).await;
        let patch = patch_of(&fixture.review(|_| ()).await);
        assert!(patch.contains(r#""name":"daprd""#) && patch.contains("BEGIN CERTIFICATE"));
        assert_eq!(patch.contains("--enable-mtls"), expected, "{mtls:?}");
        assert_eq!(
            fixture.metrics(),
            ["requests_total 1", r#"succeeded_total{app_id="app"} 1"#]
        );
    }
}

#[tokio::test]
async fn only_allowed_accounts_get_a_sidecar() {
    let fixture = fixture(None).await;
    let allowed = fixture
        .review(|it| it["userInfo"] = json!({"username": "x", "groups": ["system:masters"]}))
        .await;
    patch_of(&allowed);
    let other = fixture
        .review(|it| it["userInfo"] = json!({"username": "system:serviceaccount:a:b"}))
        .await;
    assert_eq!(other, json!({"uid": "u", "allowed": true}));
    assert!(
        fixture
            .metrics()
            .contains(&r#"failed_total{app_id="app",reason="pod_patch"} 1"#.to_owned())
    );
}

#[tokio::test]
async fn pods_without_need_of_a_sidecar_are_not_changed() {
    let fixture = fixture(None).await;
    let untouched = json!({"uid": "u", "allowed": true});
    let disabled = fixture
        .review(|it| it["object"]["metadata"]["annotations"]["dapr.io/enabled"] = json!("false"));
    assert_eq!(disabled.await, untouched);
    assert_eq!(
        fixture
            .review(|it| it["object"]["metadata"]["annotations"] = Value::Null)
            .await,
        untouched
    );
    assert_eq!(
        fixture
            .review(|it| it["object"]["spec"]["containers"][0]["name"] = json!("daprd"))
            .await,
        untouched
    );
    assert_eq!(fixture.metrics(), ["requests_total 3"]);
    assert_eq!(
        fixture
            .review(|it| it["kind"]["kind"] = json!("Service"))
            .await,
        untouched
    );
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let fixture = fixture(None).await;
    let message = async |edit: fn(&mut Value)| {
        let response = fixture.review(edit).await;
        assert_eq!(response["allowed"], false);
        response["status"]["message"].as_str().unwrap().to_owned()
    };
    let wrong =
        message(|it| it["object"]["metadata"]["annotations"]["dapr.io/grpc-port"] = json!("x"))
            .await;
    assert_eq!(
        wrong,
        r#"annotation dapr.io/grpc-port must be an integer, not "x""#
    );
    let nameless =
        message(|it| it["object"]["metadata"]["annotations"]["dapr.io/app-id"] = json!("")).await;
    assert_eq!(nameless, "value for the dapr.io/app-id annotation is empty");
    let nothing = message(|it| it["object"] = Value::Null).await;
    assert_eq!(
        nothing,
        "could not unmarshal raw object: unexpected end of JSON input"
    );
    let broken = message(|it| it["object"]["spec"]["containers"] = json!("x")).await;
    assert!(
        broken.starts_with("could not unmarshal raw object: spec.containers: "),
        "{broken}"
    );
    assert!(
        fixture
            .metrics()
            .contains(&r#"failed_total{app_id="app",reason="patch"} 1"#.to_owned())
    );
}

#[tokio::test]
async fn a_body_that_is_not_a_review_is_refused() {
    let fixture = fixture(None).await;
    assert_eq!(
        fixture.post("application/json", String::new()).await,
        (StatusCode::BAD_REQUEST, "empty body\n".into())
    );
    let (status, body) = fixture.post("text/plain", "{}".into()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(body, "invalid Content-Type, expected `application/json`\n");
    for body in ["<", "[]", "{}"] {
        let (status, answer) = fixture.post("application/json", body.into()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (status, &answer["response"]["allowed"]),
            (StatusCode::OK, &json!(false)),
            "{body}"
        );
        assert!(answer.get("kind").is_none());
    }
}

#[tokio::test]
async fn the_number_and_length_of_labels_is_limited_whatever_clients_send() {
    let fixture = fixture(None).await;
    let app_id = |app_id: String| {
        move |it: &mut Value| {
            it["object"]["metadata"]["annotations"]["dapr.io/app-id"] = app_id.into()
        }
    };
    for n in 0..1100 {
        fixture.review(app_id(format!("app-{n}"))).await;
        fixture.review(app_id(format!("App {n}"))).await;
    }
    let refused = fixture.review(app_id("x".repeat(200_000))).await;
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.len() < 1100, "{}", message.len());
    let long_name = "y".repeat(200_000);
    fixture
        .review(|it| {
            it["kind"]["kind"] = json!("Service");
            it["name"] = json!(long_name);
        })
        .await;
    let metrics = fixture.metrics();
    let count = |start: &str| {
        metrics
            .iter()
            .filter(|line| line.starts_with(start))
            .count()
    };
    assert_eq!(
        (count("succeeded_total{"), count("failed_total{")),
        (1001, 2)
    );
    assert!(metrics.contains(&r#"succeeded_total{app_id=""} 100"#.to_owned()));
    assert!(metrics.contains(&r#"failed_total{app_id="",reason="patch"} 1101"#.to_owned()));
    assert!(metrics.iter().all(|line| line.len() < 200));
}
