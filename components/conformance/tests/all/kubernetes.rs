//! `configuration.kubernetes` on an API server that has one ConfigMap.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use outrider_components::Pairs;
use outrider_conformance::configuration::{Outside, Promises};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Default)]
struct Cluster {
    version: u64,
    data: BTreeMap<String, String>,
    watches: Vec<mpsc::UnboundedSender<Bytes>>,
    /// Watches so far.
    watched: usize,
}

type Shared = Arc<Mutex<Cluster>>;

impl Cluster {
    fn map(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "apps", "resourceVersion": self.version.to_string()},
            "data": self.data,
        })
    }

    fn change(&mut self, key: &str, value: Option<&str>) -> String {
        self.version += 1;
        match value {
            Some(value) => drop(self.data.insert(key.to_owned(), value.to_owned())),
            None => drop(self.data.remove(key)),
        }
        let event = json!({"type": "MODIFIED", "object": self.map()});
        let line = Bytes::from(format!("{event}\n"));
        self.watches
            .retain(|watch| watch.send(line.clone()).is_ok());
        self.version.to_string()
    }
}

async fn maps(
    State(shared): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut cluster = shared.lock().expect("no test has panicked");
    assert_eq!(query["fieldSelector"], "metadata.name=settings");
    if !query.contains_key("watch") {
        let version = cluster.version.to_string();
        return Json(json!({
            "apiVersion": "v1",
            "kind": "ConfigMapList",
            "metadata": {"resourceVersion": version},
            "items": [cluster.map()],
        }))
        .into_response();
    }
    let (events, lines) = mpsc::unbounded_channel();
    // What has changed since the list comes first.
    if query["resourceVersion"] != cluster.version.to_string() {
        let event = json!({"type": "MODIFIED", "object": cluster.map()});
        let _ = events.send(Bytes::from(format!("{event}\n")));
    }
    cluster.watches.push(events);
    cluster.watched += 1;
    let lines = UnboundedReceiverStream::new(lines).map(Ok::<_, Infallible>);
    Body::from_stream(lines).into_response()
}

struct Api(Shared);

#[async_trait]
impl Outside for Api {
    async fn set(&self, key: &str, value: &str) -> String {
        let mut cluster = self.0.lock().expect("no test has panicked");
        let version = cluster.change(key, Some(value));
        // Watches end from time to time, as those of a real server do.
        if cluster.version.is_multiple_of(3) {
            cluster.watches.clear();
        }
        version
    }

    async fn delete(&self, key: &str) {
        let mut cluster = self.0.lock().expect("no test has panicked");
        cluster.change(key, None);
    }
}

#[tokio::test]
async fn configuration() {
    // As the sidecar does when it starts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let shared = Shared::default();
    let routes = Router::new()
        .route("/api/v1/namespaces/default/configmaps", get(maps))
        .with_state(shared.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.expect("serves") });
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(&file, kubeconfig.to_string()).expect("write");
    let path = file.display().to_string();
    let properties = [("configMapName", "settings"), ("kubeconfigPath", &path)];
    let store = crate::configuration::connect("configuration.kubernetes", &properties).await;
    let promises = Promises {
        tells_deletions: true,
        versions_keys: false,
        tells_current: true,
        metadata: Pairs::new(),
    };
    outrider_conformance::configuration::run(&*store, &Api(shared.clone()), &promises).await;
    let watched = shared.lock().expect("no test has panicked").watched;
    assert!(watched > 1, "a watch that ends is opened again");
}
