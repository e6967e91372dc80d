//! Calls as a sidecar makes them, with an API server whose lists have no versions and whose watches end at once.

mod secrets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response as HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use outrider_host::Tasks;
use outrider_security::{Peer, SpiffeId, TrustDomain};
use serde_json::json;
use tonic::Code;

use super::*;

/// What the API server has and was asked for.
#[derive(Default)]
struct Cluster {
    /// Items by the path of their collection.
    collections: HashMap<&'static str, Vec<Value>>,
    /// Status codes for Secrets that it does not hand out, by name.
    refused: HashMap<&'static str, u16>,
    /// Paths below those of Secrets that were asked for.
    secrets: Vec<String>,
}

type Shared = Arc<Mutex<Cluster>>;

const COMPONENTS: &str = "/apis/dapr.io/v1alpha1/components";
const CONFIGURATIONS: &str = "/apis/dapr.io/v1alpha1/configurations";
const MCP_SERVERS: &str = "/apis/dapr.io/v1alpha1/mcpservers";
const ENDPOINTS: &str = "/apis/dapr.io/v1alpha1/httpendpoints";
const RESILIENCIES: &str = "/apis/dapr.io/v1alpha1/resiliencies";
const SECRETS: &str = "/api/v1/secrets";
const PODS: &str = "/api/v1/pods";

async fn answer(State(cluster): State<Shared>, uri: Uri) -> HttpResponse {
    if uri
        .query()
        .is_some_and(|query| query.contains("watch=true"))
    {
        return StatusCode::OK.into_response();
    }
    let mut cluster = cluster.lock().unwrap();
    if uri.path().contains("/secrets") {
        cluster.secrets.push(uri.path().to_owned());
        return one_secret(&cluster, uri.path());
    }
    match cluster.collections.get(uri.path()) {
        Some(items) => json!({"items": items}).to_string().into_response(),
        None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
    }
}

/// Lists of Secrets are forbidden.
fn one_secret(cluster: &Cluster, path: &str) -> HttpResponse {
    let failure = |code: u16, reason: &str| {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
        let code = StatusCode::from_u16(code).unwrap();
        (code, status.to_string()).into_response()
    };
    let Some((namespace, name)) = path
        .strip_prefix("/api/v1/namespaces/")
        .and_then(|rest| rest.split_once("/secrets/"))
    else {
        return failure(403, "Forbidden");
    };
    if let Some(code) = cluster.refused.get(name) {
        return failure(*code, "Refused");
    }
    let mut all = cluster.collections.get(SECRETS).into_iter().flatten();
    let wanted = |secret: &&Value| {
        secret["metadata"]["name"] == name && secret["metadata"]["namespace"] == namespace
    };
    match all.find(wanted) {
        Some(secret) => secret.to_string().into_response(),
        None => failure(404, "NotFound"),
    }
}

struct Fixture {
    server: Server,
    cluster: Shared,
    tasks: Tasks,
}

async fn fixture(collections: impl IntoIterator<Item = (&'static str, Vec<Value>)>) -> Fixture {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster: Shared = Arc::default();
    cluster.lock().unwrap().collections = collections.into_iter().collect();
    let router = Router::new().fallback(answer).with_state(cluster.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn("api server", async move {
        drop(axum::serve(listener, router).await)
    });
    let client = outrider_k8s::Client::try_from(kube::Config::new(
        format!("http://{address}").parse().unwrap(),
    ))
    .unwrap();
    let resources = Resources::watch(&client, None, &tasks);
    tokio::time::timeout(Duration::from_secs(10), resources.synced())
        .await
        .unwrap();
    let server = Server {
        secrets: Arc::new(Secrets::new(client)),
        resources,
        stopping: tasks.stopping(),
    };
    Fixture {
        server,
        cluster,
        tasks,
    }
}

impl Fixture {
    fn set(&self, collection: &'static str, items: Vec<Value>) {
        let mut cluster = self.cluster.lock().unwrap();
        cluster.collections.insert(collection, items);
    }

    /// The Secrets that were asked for so far.
    fn asked(&self) -> Vec<String> {
        self.cluster.lock().unwrap().secrets.clone()
    }

    async fn components(&self) -> Vec<Value> {
        let request = ask(ListComponentsRequest {
            namespace: "default".into(),
        });
        let answer = self
            .server
            .list_components(request)
            .await
            .unwrap()
            .into_inner();
        answer
            .components
            .iter()
            .map(|json| serde_json::from_slice(json).unwrap())
            .collect()
    }
}

/// From app `app` in namespace `default`.
fn ask<T>(message: T) -> Request<T> {
    let id = SpiffeId::workload(&TrustDomain::public(), "default", "app").unwrap();
    let mut request = Request::new(message);
    request.extensions_mut().insert(Peer {
        address: None,
        id: Some(id),
    });
    request
}

fn component(name: &str, namespace: &str, spec: Value, scopes: &[&str]) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": null},
        "spec": spec, "auth": {"secretStore": ""}, "scopes": scopes,
    })
}

fn secret(name: &str, key: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {key: BASE64.encode(value)}})
}

async fn next<T>(events: &mut Events<T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), events.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_list_has_the_objects_of_the_callers_namespace_and_scope() {
    let fixture = fixture([(
        COMPONENTS,
        vec![
            component("a", "default", json!({"type": "state.redis"}), &[]),
            component("b", "default", json!({}), &["other", "app"]),
            component("c", "default", json!({}), &["other"]),
            component("d", "bar", json!({}), &[]),
        ],
    )])
    .await;
    let mut expected = component("a", "default", json!({"type": "state.redis"}), &[]);
    expected["kind"] = json!("Component");
    expected["apiVersion"] = json!("dapr.io/v1alpha1");
    let listed = fixture.components().await;
    assert_eq!(listed[0], expected, "forwarded as it is");
    assert_eq!(
        listed
            .iter()
            .map(|it| it["metadata"]["name"].clone())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );

    let foreign = fixture
        .server
        .list_components(ask(ListComponentsRequest {
            namespace: "bar".into(),
        }))
        .await;
    assert_eq!(foreign.unwrap_err().code(), Code::PermissionDenied);
    let anonymous = fixture
        .server
        .list_components(Request::new(ListComponentsRequest {
            namespace: "default".into(),
        }));
    assert_eq!(
        anonymous.await.unwrap_err().message(),
        "failed to determine identity"
    );
    let legacy = fixture
        .server
        .list_subscriptions(ask(()))
        .await
        .unwrap_err();
    assert_eq!(
        legacy.message(),
        "identity does not match requested namespace exp= got=default"
    );
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

/// An endpoint, an MCP server and a Configuration, each with a value from the secret `s`.
async fn fixture_with_references() -> Fixture {
    let header = json!({"name": "h", "secretKeyRef": {"name": "s", "key": "k"}});
    let one = |name: &str, spec: Value| vec![component(name, "default", spec, &[])];
    let endpoint = json!({"headers": [header], "clientTLS": {"rootCA": header}});
    let server = json!({"endpoint": {"stdio": {"env": [header]}}});
    let configuration = json!({"tracing": {"otel": {"headers": [header]}}});
    fixture([
        (ENDPOINTS, one("e", endpoint)),
        (MCP_SERVERS, one("m", server)),
        (CONFIGURATIONS, one("c", configuration)),
        (SECRETS, vec![secret("s", "k", "v")]),
    ])
    .await
}

fn read(json: &Bytes) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[tokio::test]
async fn endpoints_and_mcp_servers_get_the_encoded_secret() {
    let fixture = fixture_with_references().await;
    let encoded = json!(BASE64.encode("v"));
    let namespace = || "default".to_owned();
    let request = ask(ListHttpEndpointsRequest {
        namespace: namespace(),
    });
    let endpoints = fixture.server.list_http_endpoints(request).await.unwrap();
    let endpoint = read(&endpoints.get_ref().http_endpoints[0]);
    assert_eq!(endpoint["spec"]["headers"][0]["value"], encoded);
    assert_eq!(endpoint["spec"]["clientTLS"]["rootCA"]["value"], encoded);

    let request = ask(ListMcpServersRequest {
        namespace: namespace(),
    });
    let servers = fixture.server.list_mcp_servers(request).await.unwrap();
    let server = read(&servers.get_ref().mcp_servers[0]);
    assert_eq!(
        server["spec"]["endpoint"]["stdio"]["env"][0]["value"],
        encoded
    );
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_configuration_gets_the_plain_secret() {
    let fixture = fixture_with_references().await;
    let get = |name: &str| {
        ask(GetConfigurationRequest {
            name: name.into(),
            namespace: "default".to_owned(),
        })
    };
    let configuration = fixture.server.get_configuration(get("c")).await.unwrap();
    let configuration = read(&configuration.get_ref().configuration);
    assert_eq!(
        configuration["spec"]["tracing"]["otel"]["headers"][0]["value"],
        "v"
    );
    let missing = fixture.server.get_configuration(get("x")).await;
    let missing = missing.unwrap_err();
    let start = "error getting configuration default/x: ";
    assert!(missing.message().starts_with(start), "{missing}");
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn an_optional_kind_that_is_not_installed_is_empty_and_a_required_one_an_error() {
    let fixture = fixture_with_references().await;
    let namespace = || "default".to_owned();
    let request = ask(ListWorkflowAccessPolicyRequest {
        namespace: namespace(),
    });
    let policies = fixture.server.list_workflow_access_policy(request).await;
    assert_eq!(policies.unwrap().get_ref().policies.len(), 0);
    let request = ask(ListResiliencyRequest {
        namespace: namespace(),
    });
    let resiliencies = fixture.server.list_resiliency(request).await.unwrap_err();
    let start = "error listing resiliencies: ";
    assert!(resiliencies.message().starts_with(start), "{resiliencies}");
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_stream_sends_each_change_once_and_ends_with_the_process() {
    let fixture = fixture([(
        COMPONENTS,
        vec![component("known", "default", json!(0), &[])],
    )])
    .await;
    let request = ask(ComponentUpdateRequest {
        namespace: "default".into(),
    });
    let mut events = fixture
        .server
        .component_update(request)
        .await
        .unwrap()
        .into_inner();
    let read = |event: ComponentUpdateEvent| {
        let json: Value = serde_json::from_slice(&event.component).unwrap();
        (
            json["metadata"]["name"].as_str().unwrap().to_owned(),
            json["spec"].clone(),
            event.r#type(),
        )
    };
    let all = |spec: u32, scopes: &[&str]| vec![component("a", "default", json!(spec), scopes)];
    for (items, expected) in [
        (all(1, &[]), ("a".to_owned(), json!(1), Type::Created)),
        (all(2, &["app"]), ("a".to_owned(), json!(2), Type::Updated)),
        (
            all(3, &["other"]),
            ("a".to_owned(), json!(2), Type::Deleted),
        ),
        (all(4, &["app"]), ("a".to_owned(), json!(4), Type::Created)),
        (vec![], ("a".to_owned(), json!(4), Type::Deleted)),
    ] {
        let mut items = items;
        items.push(component("known", "default", json!(0), &[]));
        items.push(component("foreign", "bar", expected.1.clone(), &[]));
        fixture.set(COMPONENTS, items);
        assert_eq!(read(next(&mut events).await), expected);
    }
    fixture.tasks.stop(Some(Duration::ZERO)).await;
    let end = tokio::time::timeout(Duration::from_secs(10), events.next())
        .await
        .unwrap();
    assert!(end.is_none(), "{end:?}");
    let late = fixture
        .server
        .component_update(ask(ComponentUpdateRequest {
            namespace: "default".into(),
        }))
        .await;
    assert_eq!(late.err().unwrap().message(), "operator is shutting down");
}

#[tokio::test]
async fn resiliency_is_listed_in_scope_and_streamed() {
    let spec = |retries: u32| {
        json!({
            "policies": {"retries": {"r": {"policy": "constant", "maxRetries": retries}}},
            "targets": {"apps": {"a": {"retry": "r"}}},
        })
    };
    let resource = |name: &str, namespace: &str, retries: u32, scopes: &[&str]| {
        component(name, namespace, spec(retries), scopes)
    };
    let others = || {
        vec![
            resource("foreign", "bar", 1, &[]),
            resource("unseen", "default", 1, &["other"]),
        ]
    };
    let mut items = others();
    items.push(resource("mine", "default", 2, &["app"]));
    let fixture = fixture([(RESILIENCIES, items)]).await;
    let namespace = || "default".to_owned();
    let listed = fixture
        .server
        .list_resiliency(ask(ListResiliencyRequest {
            namespace: namespace(),
        }))
        .await
        .unwrap()
        .into_inner();
    let read = |json: &[u8]| -> (String, Value) {
        let json: Value = serde_json::from_slice(json).unwrap();
        let name = json["metadata"]["name"].as_str().unwrap();
        (name.to_owned(), json["spec"].clone())
    };
    let all: Vec<_> = listed.resiliencies.iter().map(|r| read(r)).collect();
    assert_eq!(all, [("mine".to_owned(), spec(2))]);

    let request = ask(ResiliencyUpdateRequest {
        namespace: namespace(),
    });
    let mut events = fixture
        .server
        .resiliency_update(request)
        .await
        .unwrap()
        .into_inner();
    for (items, expected, kind) in [
        (vec![resource("mine", "default", 3, &[])], 3, Type::Updated),
        (vec![], 3, Type::Deleted),
    ] {
        fixture.set(RESILIENCIES, [others(), items].concat());
        let event = next(&mut events).await;
        assert_eq!(read(&event.resiliency), ("mine".to_owned(), spec(expected)));
        assert_eq!(event.r#type(), kind);
    }
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn an_app_gets_changes_of_its_own_configuration_only() {
    let pod = json!({"metadata": {"name": "p", "namespace": "default", "annotations": {
        "dapr.io/enabled": "true", "dapr.io/app-id": "app", "dapr.io/config": "mine",
    }}});
    let fixture = fixture([(PODS, vec![pod]), (CONFIGURATIONS, vec![])]).await;
    let request = ask(ConfigurationUpdateRequest {
        namespace: "default".into(),
    });
    let mut events = fixture
        .server
        .configuration_update(request)
        .await
        .unwrap()
        .into_inner();
    let configurations =
        ["aaa", "mine", "zzz"].map(|name| component(name, "default", json!({}), &[]));
    fixture.set(CONFIGURATIONS, configurations.to_vec());
    let first = next(&mut events).await;
    let json: Value = serde_json::from_slice(&first.configuration).unwrap();
    assert_eq!(
        (&json["metadata"]["name"], first.r#type()),
        (&json!("mine"), Type::Created)
    );
    fixture.set(CONFIGURATIONS, vec![]);
    assert_eq!(next(&mut events).await.r#type(), Type::Deleted);

    let foreign = fixture
        .server
        .configuration_update(ask(ConfigurationUpdateRequest {
            namespace: "bar".into(),
        }))
        .await;
    let status = foreign.err().unwrap();
    assert!(
        status
            .message()
            .starts_with("failed to authorize configuration update request: rpc error: code = ")
    );
    assert_eq!(status.code(), Code::PermissionDenied);
    fixture.tasks.stop(Some(Duration::ZERO)).await;
}
