//! Sentry against an API server that knows a few objects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_proto::sentry::v1::sign_certificate_request::TokenValidator;
use outrider_security::{SpiffeId, pem};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::sentry::{Sentry, until};

const SENTRY: &str = "spiffe://cp.local/ns/sys/dapr-sentry";
const SECRET: &str = "/api/v1/namespaces/sys/secrets/dapr-trust-bundle";
const CONFIG_MAP: &str = "/api/v1/namespaces/sys/configmaps/dapr-trust-bundle";

/// Objects by path; what is posted to token reviews is answered by `account`.
#[derive(Default)]
struct Objects {
    by_path: HashMap<String, Value>,
    /// User name that every token belongs to, and whom it is for.
    account: String,
    audiences: Vec<String>,
    reviewed: Vec<Value>,
    /// Paths that were read.
    read: Vec<String>,
    versions: u64,
}

type Api = Arc<Mutex<Objects>>;

async fn serve(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut api = api.lock().unwrap();
    let path = parts.uri.path().to_owned();
    let not_found = (
        StatusCode::NOT_FOUND,
        Json(
            json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"}),
        ),
    );
    match parts.method {
        Method::GET => {
            api.read.push(path.clone());
            match api.by_path.get(&path) {
                Some(object) => Json(object.clone()).into_response(),
                None => not_found.into_response(),
            }
        }
        Method::POST => {
            api.reviewed.push(body["spec"].clone());
            let token = body["spec"]["token"].as_str().unwrap_or_default();
            let status = if token.contains("forged") {
                json!({"authenticated": false, "error": "invalid bearer token"})
            } else {
                json!({"authenticated": true, "user": {"username": api.account}, "audiences": api.audiences})
            };
            (StatusCode::CREATED, Json(json!({"status": status}))).into_response()
        }
        Method::PUT => {
            let current = api.by_path.get(&path).cloned().unwrap_or_default();
            if current["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                let conflict = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "conflict"});
                return (StatusCode::CONFLICT, Json(conflict)).into_response();
            }
            api.versions += 1;
            let mut stored = body;
            stored["metadata"]["resourceVersion"] = api.versions.to_string().into();
            api.by_path.insert(path, stored.clone());
            Json(stored).into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

struct Cluster {
    api: Api,
    kubeconfig: String,
    _folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let api = Api::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(serve).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": server}}],
            "users": [{"name": "x", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        });
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        let cluster = Self {
            api,
            kubeconfig: format!("-kubeconfig={}", path.display()),
            _folder: folder,
        };
        cluster.put(
            "/apis/dapr.io/v1alpha1/namespaces/sys/configurations/daprsystem",
            json!({"metadata": {"name": "daprsystem"}, "spec": {"mtls": {}}}),
        );
        cluster.put(
            SECRET,
            json!({"metadata": {"resourceVersion": "a"}, "data": {"other": "eA=="}}),
        );
        cluster.put(
            CONFIG_MAP,
            json!({"metadata": {"resourceVersion": "b"}, "data": null}),
        );
        cluster.account("apps", "sa");
        cluster
    }

    fn put(&self, path: &str, object: Value) {
        self.api
            .lock()
            .unwrap()
            .by_path
            .insert(path.to_owned(), object);
    }

    fn get(&self, path: &str) -> Value {
        self.api.lock().unwrap().by_path[path].clone()
    }

    fn account(&self, namespace: &str, name: &str) {
        let mut api = self.api.lock().unwrap();
        api.account = format!("system:serviceaccount:{namespace}:{name}");
        api.audiences = vec![SENTRY.to_owned()];
    }

    /// A pod under service account `sa` of `namespace`.
    fn pod(&self, namespace: &str, account: &str, annotations: Value) {
        self.put(
            &format!("/api/v1/namespaces/{namespace}/pods/mypod"),
            json!({
                "metadata": {"name": "mypod", "namespace": namespace, "annotations": annotations},
                "spec": {"serviceAccountName": account, "containers": [{"name": "daprd", "image": "i"}]},
            }),
        );
    }

    async fn sentry(&self, more: &[&str]) -> Sentry {
        let mut flags = vec![
            "-mode=kubernetes",
            "-trust-domain=cp.local",
            "-config=daprsystem",
            &self.kubeconfig,
        ];
        flags.extend(more);
        let environment = [
            ("NAMESPACE", "sys"),
            ("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true"),
        ];
        Sentry::start_in(tempfile::tempdir().unwrap(), "", &flags, &environment).await
    }
}

/// Asks for a certificate with a token that names the pod.
async fn ask(
    sentry: &Sentry,
    cluster: &Cluster,
    id: &str,
    namespace: &str,
) -> Result<Vec<u8>, tonic::Status> {
    ask_as(sentry, cluster, "mypod", id, namespace).await
}

async fn ask_as(
    sentry: &Sentry,
    cluster: &Cluster,
    pod: &str,
    id: &str,
    namespace: &str,
) -> Result<Vec<u8>, tonic::Status> {
    let root = cluster.get(CONFIG_MAP)["data"]["ca.crt"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let request = SignCertificateRequest {
        id: id.into(),
        namespace: namespace.into(),
        token: json!({"kubernetes.io": {"pod": {"name": pod}}}).to_string(),
        token_validator: TokenValidator::Kubernetes.into(),
        certificate_signing_request: csr.into_bytes().into(),
        ..Default::default()
    };
    // Any identity will do to dial with; this one is made up on the spot.
    let anchors = outrider_security::TrustAnchors::from_pem(&root).unwrap();
    let connector = outrider_security::Connector::anonymous(
        &anchors,
        outrider_security::Expected::Id(SENTRY.parse::<SpiffeId>().unwrap()),
    )
    .unwrap();
    let endpoint = format!("http://127.0.0.1:{}", sentry.port);
    let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let mut client = outrider_proto::sentry::v1::ca_client::CaClient::new(channel);
    let answer = client.sign_certificate(request).await?;
    Ok(answer.into_inner().workload_certificate.to_vec())
}

async fn refusal(sentry: &Sentry, cluster: &Cluster, id: &str, namespace: &str) -> String {
    let status = ask(sentry, cluster, id, namespace).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    status.message().to_owned()
}

#[tokio::test]
async fn the_bundle_is_made_once_and_published() {
    let cluster = Cluster::start().await;
    let mut sentry = cluster.sentry(&["-jwt-enabled"]).await;
    let (secret, map) = (cluster.get(SECRET), cluster.get(CONFIG_MAP));
    assert_eq!(secret["data"]["other"], "eA==", "foreign keys stay");
    for key in ["ca.crt", "issuer.crt", "issuer.key", "jwt.key", "jwks.json"] {
        assert!(secret["data"][key].is_string(), "{key}");
    }
    assert!(map["data"]["jwks.json"].is_string());
    sentry.interrupt().await;

    // A config map that was tampered with is repaired; the CA stays.
    let mut tampered = map.clone();
    tampered["data"]["ca.crt"] = "\n".into();
    cluster.put(CONFIG_MAP, tampered);
    let _sentry = cluster.sentry(&["-jwt-enabled"]).await;
    assert_eq!(cluster.get(SECRET), secret);
    assert_eq!(cluster.get(CONFIG_MAP)["data"], map["data"]);
}

#[tokio::test]
async fn parts_of_an_incomplete_authority_are_kept_beside_the_new_one() {
    let cluster = Cluster::start().await;
    let data = json!({"ca.crt": "b2xk", "issuer.key": "a2V5", "issuer.crt": ""});
    cluster.put(
        SECRET,
        json!({"metadata": {"resourceVersion": "a"}, "data": data}),
    );
    let _sentry = cluster.sentry(&[]).await;
    let data = &cluster.get(SECRET)["data"];
    assert_eq!(data["ca.crt.old"], "b2xk");
    assert_eq!(data["issuer.key.old"], "a2V5");
    assert_ne!(data["ca.crt"], "b2xk");
    assert!(data.get("issuer.crt.old").is_none());
}

#[tokio::test]
async fn replicas_that_start_together_agree() {
    let cluster = Cluster::start().await;
    let (_a, _b) = tokio::join!(cluster.sentry(&[]), cluster.sentry(&[]));
    cluster.pod("apps", "sa", json!({}));
    let first = ask(&_a, &cluster, "mypod", "apps").await.unwrap();
    let second = ask(&_b, &cluster, "mypod", "apps").await.unwrap();
    let issuer = |chain: &[u8]| pem::certificates(chain).unwrap()[1].clone();
    assert_eq!(issuer(&first), issuer(&second));
}

#[tokio::test]
async fn a_pod_gets_the_identity_that_its_annotations_give() {
    let cluster = Cluster::start().await;
    let sentry = cluster.sentry(&[]).await;
    cluster.pod(
        "apps",
        "sa",
        json!({"dapr.io/app-id": "my-app", "dapr.io/config": "c"}),
    );
    assert_eq!(
        refusal(&sentry, &cluster, "my-app", "apps").await,
        "failed to get configuration"
    );
    cluster.put(
        "/apis/dapr.io/v1alpha1/namespaces/apps/configurations/c",
        json!({"metadata": {"name": "c", "namespace": "apps"}, "spec": {"accessControl": {"trustDomain": "mine"}}}),
    );
    let chain = ask(&sentry, &cluster, "my-app", "apps").await.unwrap();
    let chain = pem::certificates(&chain).unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        names.value.general_names,
        [GeneralName::URI("spiffe://mine/ns/apps/my-app")]
    );
    let images = leaf
        .extensions()
        .iter()
        .find(|e| e.oid.to_id_string() == "1.3.6.1.4.1.57683.100.1")
        .unwrap();
    assert!(!images.critical);
    assert_eq!(
        &images.value[2..],
        br#"[{"role":"daprd","containerName":"daprd","image":"i"}]"#
    );
    let reviewed = cluster.api.lock().unwrap().reviewed[0].clone();
    assert_eq!(reviewed["audiences"], json!(["dapr.io/sentry", SENTRY]));

    assert_eq!(
        refusal(&sentry, &cluster, "apps:sa", "apps").await,
        "app-id mismatch. expected: my-app, received: apps:sa"
    );
    assert_eq!(
        refusal(&sentry, &cluster, "my-app", "other").await,
        "namespace mismatch; received namespace: other"
    );
    cluster.account("apps", "another");
    assert_eq!(
        refusal(&sentry, &cluster, "my-app", "apps").await,
        "pod service account mismatch"
    );
    cluster.account("elsewhere", "sa");
    assert_eq!(
        refusal(&sentry, &cluster, "my-app", "apps").await,
        "failed to get pod of identity"
    );
    assert!(
        refusal(&sentry, &cluster, &"a".repeat(65), "apps")
            .await
            .contains("64 characters or less")
    );
}

#[tokio::test]
async fn names_cannot_leave_their_path_and_nothing_is_listed() {
    let cluster = Cluster::start().await;
    let sentry = cluster.sentry(&[]).await;
    cluster.pod("other", "sa", json!({}));
    cluster.pod("apps", "sa", json!({"dapr.io/config": "x/../c?"}));
    for pod in [
        "../../other/pods/mypod",
        "mypod?",
        "mypod%3F",
        "..",
        "MYPOD",
        "absent",
    ] {
        let refused = ask_as(&sentry, &cluster, pod, "mypod", "apps").await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.message(), "failed to get pod of identity", "{pod}");
    }
    assert_eq!(
        refusal(&sentry, &cluster, "mypod", "apps").await,
        "failed to get configuration"
    );
    let read = cluster.api.lock().unwrap().read.clone();
    let below = |part: &str| -> Vec<&String> { read.iter().filter(|p| p.contains(part)).collect() };
    let pods = "/api/v1/namespaces/apps/pods";
    assert_eq!(
        below("/pods"),
        [&format!("{pods}/absent"), &format!("{pods}/mypod")]
    );
    assert!(below("/namespaces/apps/configurations").is_empty());

    // What is left empty counts as absent.
    let empty = json!({"dapr.io/app-id": "", "dapr.io/config": ""});
    cluster.pod("apps", "sa", empty);
    ask(&sentry, &cluster, "mypod", "apps").await.unwrap();
}

#[tokio::test]
async fn only_the_control_plane_gets_its_identities() {
    let cluster = Cluster::start().await;
    let sentry = cluster.sentry(&[]).await;
    cluster.account("sys", "dapr-operator");
    cluster.pod(
        "sys",
        "dapr-operator",
        json!({"dapr.io/control-plane": "operator"}),
    );
    let chain = ask(&sentry, &cluster, "dapr-operator", "sys")
        .await
        .unwrap();
    let chain = pem::certificates(&chain).unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        names.value.general_names,
        [
            GeneralName::URI("spiffe://cp.local/ns/sys/dapr-operator"),
            GeneralName::DNSName("dapr-webhook.sys.svc")
        ]
    );

    let answer_for = async |annotations: Value, id: &str, namespace: &str, account: &str| {
        cluster.account(namespace, account);
        cluster.pod(namespace, account, annotations);
        refusal(&sentry, &cluster, id, namespace).await
    };
    let service = json!({"dapr.io/control-plane": "operator"});
    assert_eq!(
        answer_for(service.clone(), "dapr-operator", "apps", "sa").await,
        "control plane service in namespace 'apps' is not allowed"
    );
    assert_eq!(
        answer_for(service, "dapr-operator", "sys", "default").await,
        "control plane service 'mypod' must run under service account 'dapr-operator', not 'default'"
    );
    assert_eq!(
        answer_for(json!({"dapr.io/control-plane": "x"}), "dapr-x", "sys", "sa").await,
        "unknown control plane service 'mypod'"
    );
    assert_eq!(
        answer_for(
            json!({"dapr.io/control-plane": "operator", "dapr.io/app-id": "a"}),
            "a",
            "sys",
            "sa"
        )
        .await,
        "control plane service 'mypod' cannot have annotation 'dapr.io/app-id'"
    );
    cluster.put(
        "/apis/dapr.io/v1alpha1/namespaces/sys/configurations/c",
        json!({"metadata": {"name": "c", "namespace": "sys"}, "spec": {"accessControl": {"trustDomain": "cp.local"}}}),
    );
    assert_eq!(
        answer_for(
            json!({"dapr.io/app-id": "dapr-operator", "dapr.io/config": "c"}),
            "dapr-operator",
            "sys",
            "sa"
        )
        .await,
        "app-id 'dapr-operator' is reserved for the control plane"
    );
}

#[tokio::test]
async fn a_rotated_secret_is_taken_up_when_the_mounted_copy_changes() {
    let (cluster, other) = tokio::join!(Cluster::start(), Cluster::start());
    let (sentry, _other) = tokio::join!(cluster.sentry(&[]), other.sentry(&[]));
    cluster.pod("apps", "sa", json!({}));
    let mut secret = cluster.get(SECRET);
    for key in ["ca.crt", "issuer.crt", "issuer.key"] {
        secret["data"][key] = other.get(SECRET)["data"][key].clone();
    }
    cluster.put(SECRET, secret);
    std::fs::write(sentry.ca("ca.crt"), "the kubelet was here").unwrap();
    let new_root = other.get(CONFIG_MAP)["data"]["ca.crt"].clone();
    until("the new root", || {
        let published = cluster.get(CONFIG_MAP)["data"]["ca.crt"] == new_root;
        async move { published.then_some(()) }
    })
    .await;
    until("sentry under the new root", || {
        let asking = ask(&sentry, &cluster, "mypod", "apps");
        async { asking.await.ok() }
    })
    .await;
}

#[tokio::test]
async fn a_token_without_the_audience_of_sentry_is_refused() {
    let cluster = Cluster::start().await;
    let sentry = cluster.sentry(&[]).await;
    cluster.pod("apps", "sa", json!({}));
    assert!(ask(&sentry, &cluster, "mypod", "apps").await.is_ok());
    for audiences in [vec![], vec!["https://kubernetes.default.svc".to_owned()]] {
        cluster.api.lock().unwrap().audiences = audiences;
        let refused = refusal(&sentry, &cluster, "mypod", "apps").await;
        assert_eq!(refused, "authentication failed");
    }
}

#[tokio::test]
async fn forged_tokens_cost_few_reviews() {
    let cluster = Cluster::start().await;
    let sentry = cluster.sentry(&[]).await;
    cluster.pod("apps", "sa", json!({}));
    let start = tokio::time::Instant::now();
    // Concurrently, as an attacker would.
    let forged = (0..300).map(|_| ask_as(&sentry, &cluster, "forged", "mypod", "apps"));
    let mut refused = 0;
    for answer in futures_util::future::join_all(forged).await {
        refused += usize::from(answer.unwrap_err().code() == Code::ResourceExhausted);
    }
    let seconds = start.elapsed().as_secs() as usize;
    let reviewed = cluster.api.lock().unwrap().reviewed.len();
    // Those that were asked for at once, those that are allowed, one a second.
    assert!(reviewed <= 64 + 20 + seconds, "{reviewed} in {seconds} s");
    assert!(refused >= 200, "{refused} were refused");
    // It is forgiven.
    until("a good token is good again", || async {
        ask(&sentry, &cluster, "mypod", "apps").await.ok()
    })
    .await;
}
