use axum::Router;
use axum::extract::{RawQuery, Request as Asked, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;

/// An agent as its documentation says: services with metadata, searches that
/// wait for a change.
struct Agent {
    services: watch::Sender<(u64, Value)>,
    /// Method, path and query, token and body of what was asked.
    asked: Mutex<Vec<(String, String, String)>>,
}

impl Agent {
    fn asked(&self, path: &str) -> Vec<(String, String, String)> {
        let asked = self.asked.lock().expect("no test has panicked").clone();
        let is_there = |call: &&(String, String, String)| call.0.contains(path);
        asked.iter().filter(is_there).cloned().collect()
    }
}

async fn answer(
    State(agent): State<Arc<Agent>>,
    RawQuery(query): RawQuery,
    asked: Asked,
) -> Response {
    let (path, query) = (asked.uri().path().to_owned(), query.unwrap_or_default());
    let what = format!("{} {path}?{query}", asked.method());
    let token = asked.headers().get("x-consul-token");
    let token = token
        .map_or("", |token| token.to_str().expect("is text"))
        .to_owned();
    let body = axum::body::to_bytes(asked.into_body(), usize::MAX).await;
    let body = String::from_utf8_lossy(&body.expect("is there")).into_owned();
    agent
        .asked
        .lock()
        .expect("no test has panicked")
        .push((what, token.clone(), body));
    if token == "wrong" {
        return (StatusCode::FORBIDDEN, "Permission denied").into_response();
    }
    let Some(name) = path.strip_prefix("/v1/health/service/") else {
        return StatusCode::OK.into_response();
    };
    let index = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("index="));
    let since: u64 = index.map_or(0, |index| index.parse().expect("is a number"));
    let mut services = agent.services.subscribe();
    let (index, services) = services
        .wait_for(|(index, _)| *index > since)
        .await
        .expect("the agent runs")
        .clone();
    let found = services.get(name).cloned().unwrap_or_else(|| json!([]));
    ([("x-consul-index", index.to_string())], found.to_string()).into_response()
}

fn instance(address: &str, node: &str, port: Option<&str>) -> Value {
    let meta = port.map_or_else(|| json!({}), |port| json!({"DAPR_PORT": port}));
    json!({"Service": {"Address": address, "Meta": meta}, "Node": {"Address": node}})
}

async fn agent(services: Value) -> (Arc<Agent>, String, JoinSet<()>) {
    // As the sidecar does when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let agent = Arc::new(Agent {
        services: watch::Sender::new((1, services)),
        asked: Mutex::default(),
    });
    let routes = Router::new().fallback(answer).with_state(agent.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("is bound").to_string();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.expect("serves") });
    (agent, address, server)
}

fn context() -> Context {
    Context {
        app_id: "cart".to_owned(),
        host: "10.0.0.1".to_owned(),
        internal_port: 50002,
        http_port: 3500,
        app_port: Some(8080),
        ..Context::default()
    }
}

async fn resolver(configuration: &Value) -> Result<Arc<dyn Resolver>, Error> {
    connect(Metadata::from_json("nr", configuration), context()).await
}

async fn resolve(resolver: &dyn Resolver, app_id: &str) -> Result<String, String> {
    let request = Request {
        app_id,
        ..Request::default()
    };
    let resolved = resolver.resolve(&request).await;
    resolved.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_sidecar_is_found_at_the_port_in_the_metadata_of_its_service() {
    let (agent, address, _server) = agent(json!({
        "cart": [instance("10.0.0.7", "10.0.0.8", Some("50002"))],
        "node": [instance("", "10.0.0.8", Some("1"))],
        "six": [instance("fd00::1", "", Some("2"))],
        "name": [instance("host.example", "", Some("3"))],
        "bare": [instance("10.0.0.7", "", None)],
        "odd": [instance("a b", "", Some("4"))],
        "port": [instance("10.0.0.7", "", Some("x"))],
    }))
    .await;
    let configuration = json!({"client": {"address": address, "token": "t", "datacenter": "one"},
        "queryOptions": {"filter": "a == b", "allowStale": true, "nodeMeta": {"k": "v"}}});
    let resolver = resolver(&configuration).await.expect("is reachable");
    for (app_id, found) in [
        ("cart", "10.0.0.7:50002"),
        ("node", "10.0.0.8:1"),
        ("six", "[fd00::1]:2"),
        ("name", "host.example:3"),
    ] {
        assert_eq!(resolve(&*resolver, app_id).await.as_deref(), Ok(found));
    }
    for (app_id, error) in [
        (
            "bare",
            "target service AppID 'bare' found but DAPR_PORT missing from meta".to_owned(),
        ),
        (
            "odd",
            "invalid ip address or unreachable hostname: a b".to_owned(),
        ),
        ("port", "invalid port of a sidecar: x".to_owned()),
        (
            "none",
            format!("no healthy services found with AppID 'none' (consul at {address} was asked)"),
        ),
        (
            "../agent",
            format!(
                "no healthy services found with AppID '../agent' (consul at {address} was asked)"
            ),
        ),
    ] {
        assert_eq!(resolve(&*resolver, app_id).await, Err(error));
    }
    let (what, token, _) = &agent.asked("/v1/health/service/cart")[0];
    assert_eq!(token, "t");
    assert_eq!(
        what,
        "GET /v1/health/service/cart?dc=one&filter=a+%3D%3D+b&stale=&node-meta=k%3Av&passing=1"
    );
    assert_eq!(agent.asked("/v1/agent/self").len(), 1);
    assert!(agent.asked("register").is_empty());
}

#[tokio::test]
async fn an_address_at_which_nothing_answers_comes_last_and_others_take_turns() {
    let all = [1, 2, 3].map(|n| instance(&format!("10.0.0.{n}"), "", Some("50002")));
    let (_agent, address, _server) = agent(json!({"cart": all})).await;
    let resolver = resolver(&json!({"client": {"address": address}})).await;
    let resolver = resolver.expect("is reachable");
    let request = Request {
        app_id: "cart",
        ..Request::default()
    };
    resolver.suspect(&request, "10.0.0.2:50002");
    let mut found = Vec::new();
    for _ in 0..4 {
        found.push(resolve(&*resolver, "cart").await.expect("is there"));
    }
    found.sort();
    found.dedup();
    assert_eq!(found, ["10.0.0.1:50002", "10.0.0.3:50002"]);
    for suspect in ["10.0.0.1:50002", "10.0.0.3:50002"] {
        resolver.suspect(&request, suspect);
    }
    resolve(&*resolver, "cart").await.expect("better than none");
}

#[tokio::test]
async fn an_application_registers_itself_and_is_taken_out_at_the_end() {
    let (agent, address, _server) = agent(json!({})).await;
    let configuration = json!({"client": {"address": address}, "selfRegister": true,
        "selfDeregister": true, "tags": ["dapr"], "meta": {"k": "v"}});
    let resolver = resolver(&configuration).await.expect("registers");
    let registered = agent.asked("/v1/agent/service/register");
    let service: Value = serde_json::from_str(&registered[0].2).expect("is JSON");
    assert_eq!(
        service,
        json!({
            "ID": "cart-10.0.0.1-3500",
            "Name": "cart",
            "Address": "10.0.0.1",
            "Port": 8080,
            "Checks": [{
                "Name": "Dapr Health Status",
                "CheckID": "daprHealth:cart-10.0.0.1-3500",
                "Interval": "15s",
                "HTTP": "http://10.0.0.1:3500/v1.0/healthz?appid=cart",
            }],
            "Tags": ["dapr"],
            "Meta": {"k": "v", "DAPR_PORT": "50002"},
        })
    );
    resolver.close().await.expect("deregisters");
    let left = agent.asked("/v1/agent/service/deregister/cart%2D10%2E0%2E0%2E1%2D3500");
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn a_whole_registration_counts_instead_and_gets_the_port() {
    let (agent, address, _server) = agent(json!({})).await;
    let configuration = json!({"client": {"address": address}, "daprPortMetaKey": "PORT",
        "advancedRegistration": {"name": "other", "port": 1, "meta": {"a": "b"}}});
    let resolver = resolver(&configuration).await.expect("registers");
    let registered = agent.asked("/v1/agent/service/register");
    let service: Value = serde_json::from_str(&registered[0].2).expect("is JSON");
    let meta = json!({"a": "b", "PORT": "50002"});
    assert_eq!(service, json!({"name": "other", "port": 1, "meta": meta}));
    resolver.close().await.expect("has nothing to do");
    assert!(agent.asked("deregister").is_empty());
}

#[tokio::test]
async fn results_that_are_kept_follow_changes() {
    let (agent, address, _server) =
        agent(json!({"cart": [instance("10.0.0.1", "", Some("1"))]})).await;
    let configuration = json!({"client": {"address": address}, "useCache": true});
    let resolver = resolver(&configuration).await.expect("is reachable");
    assert_eq!(
        resolve(&*resolver, "cart").await.as_deref(),
        Ok("10.0.0.1:1")
    );
    let known = || async {
        let before = agent.asked("/v1/health/service/").len();
        let found = resolve(&*resolver, "cart").await.expect("is there");
        (found, agent.asked("/v1/health/service/").len() == before)
    };
    let within = Duration::from_secs(10);
    let following = async {
        while known().await != ("10.0.0.1:1".to_owned(), true) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let other = json!({"cart": [instance("10.0.0.2", "", Some("2"))]});
        agent.services.send_replace((2, other));
        while known().await != ("10.0.0.2:2".to_owned(), true) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, following)
        .await
        .expect("in time");
    resolver.close().await.expect("close");
}

#[tokio::test]
async fn an_agent_that_is_absent_or_refuses_fails_the_start_and_is_named() {
    let (_agent, address, _server) = agent(json!({})).await;
    let nowhere = "127.0.0.1:1";
    for (configuration, wanted) in [
        (
            json!({"client": {"address": nowhere}}),
            format!("failed check on consul agent at {nowhere}: "),
        ),
        (
            json!({"client": {"address": address, "token": "wrong"}}),
            format!(
                "failed check on consul agent at {address}: Unexpected response code: 403 (Permission denied)"
            ),
        ),
        (
            json!({"client": {"address": address, "tlsConfig": {"caPath": "/x"}}}),
            "consul: property tlsConfig.caPath is not supported: use tlsConfig.caFile".to_owned(),
        ),
        (
            json!({"client": {"scheme": "ftp"}}),
            "consul: property client.scheme must be http or https".to_owned(),
        ),
        (
            json!({"client": "x"}),
            "component nr: property client must be an object or a list".to_owned(),
        ),
        (
            json!({"selfRegister": "maybe"}),
            r#"component nr: property selfRegister must be true or false, not "maybe""#.to_owned(),
        ),
    ] {
        let error = resolver(&configuration).await.err().expect("fails");
        assert!(error.to_string().starts_with(&wanted), "{error}");
    }
}

#[tokio::test]
async fn variables_say_what_the_configuration_leaves_out() {
    let (agent, address, _server) = agent(json!({})).await;
    let variables = [
        ("CONSUL_HTTP_ADDR", format!("http://{address}")),
        ("CONSUL_HTTP_TOKEN", "t".to_owned()),
        ("CONSUL_NAMESPACE", "n".to_owned()),
    ];
    let variables = variables.into_iter();
    let context = Context {
        environment: Arc::new(variables.map(|(k, v)| (k.to_owned(), v)).collect()),
        ..context()
    };
    let metadata = Metadata::from_json("nr", &Value::Null);
    connect(metadata, context).await.expect("is reachable");
    let (what, token, _) = &agent.asked("/v1/agent/self")[0];
    assert_eq!(
        (what.as_str(), token.as_str()),
        ("GET /v1/agent/self?ns=n", "t")
    );
}
