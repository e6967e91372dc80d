//! An API server for the control plane: it stores objects, lists them and serves
//! watches. It validates nothing and knows no kinds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use base64::Engine as _;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use crate::HttpApp;

/// A cluster without nodes.
#[derive(Debug)]
pub struct Kubernetes {
    objects: Objects,
    folder: TempDir,
    _server: HttpApp,
}

#[derive(Debug, Clone)]
struct Objects {
    kept: Arc<Mutex<Kept>>,
    /// Number of changes so far, which is also the version of the whole.
    changes: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By path.
    objects: BTreeMap<String, Value>,
    /// Kind and path of every change, with the object after it.
    history: Vec<(&'static str, String, Value)>,
    /// Method, path and query of everything that was asked for.
    requests: Vec<String>,
    /// Status codes for paths that are refused.
    refused: BTreeMap<String, StatusCode>,
}

/// What a path means.
struct Place<'a> {
    /// `/api/v1`, or `/apis/<group>/<version>`.
    version: String,
    namespace: Option<&'a str>,
    plural: &'a str,
    name: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Place<'a>> {
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let length = if words.first() == Some(&"api") { 2 } else { 3 };
        let (version, rest) = words.split_at_checked(length)?;
        let version = format!("/{}", version.join("/"));
        let (namespace, plural, name) = match *rest {
            ["namespaces", namespace, plural] => (Some(namespace), plural, None),
            ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
            [plural] => (None, plural, None),
            [plural, name] => (None, plural, Some(name)),
            _ => return None,
        };
        Some(Place {
            version,
            namespace,
            plural,
            name,
        })
    }

    /// Whether the collection that this is has the object at a path.
    fn has(&self, path: &str) -> bool {
        Place::of(path).is_some_and(|object| {
            object.name.is_some()
                && (object.version.as_str(), object.plural) == (self.version.as_str(), self.plural)
                && (self.namespace.is_none() || self.namespace == object.namespace)
        })
    }
}

impl Objects {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, path: &str, object: Option<Value>) -> Option<Value> {
        let mut kept = self.lock();
        let version = kept.history.len() + 1;
        let before = kept.objects.remove(path);
        let (what, mut now) = match (object, &before) {
            (Some(object), None) => ("ADDED", object),
            (Some(object), Some(_)) => ("MODIFIED", object),
            (None, before) => ("DELETED", before.clone()?),
        };
        let place = Place::of(path)?;
        now["metadata"]["name"] = json!(place.name);
        now["metadata"]["namespace"] = json!(place.namespace);
        now["metadata"]["resourceVersion"] = json!(version.to_string());
        if what != "DELETED" {
            kept.objects.insert(path.to_owned(), now.clone());
        }
        kept.history.push((what, path.to_owned(), now.clone()));
        self.changes.send_replace(version);
        Some(now)
    }

    fn list(&self, place: &Place<'_>) -> Value {
        let kept = self.lock();
        let within = kept.objects.iter().filter(|(path, _)| place.has(path));
        let items: Vec<&Value> = within.map(|(_, object)| object).collect();
        let version = kept.history.len().to_string();
        json!({"kind": "List", "metadata": {"resourceVersion": version}, "items": items})
    }

    /// Changes after this many, as they come.
    fn watch(self, path: String, mut seen: usize) -> Body {
        let changes = WatchStream::new(self.changes.subscribe());
        Body::from_stream(changes.map(move |latest| {
            let mut lines = String::new();
            if let Some(place) = Place::of(&path) {
                let kept = self.lock();
                let new = kept.history.get(seen..latest).unwrap_or_default();
                for (what, _, object) in new.iter().filter(|(_, path, _)| place.has(path)) {
                    lines += &json!({"type": what, "object": object}).to_string();
                    lines.push('\n');
                }
            }
            seen = seen.max(latest);
            Ok::<_, Infallible>(Bytes::from(lines))
        }))
    }
}

async fn answer(State(objects): State<Objects>, method: Method, uri: Uri, body: Bytes) -> Response {
    let missing = || {
        let status =
            json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        (StatusCode::NOT_FOUND, Json(status)).into_response()
    };
    let path = uri.path();
    let refused = {
        let mut kept = objects.lock();
        kept.requests.push(format!("{method} {uri}"));
        kept.refused.get(path).copied()
    };
    if let Some(code) = refused {
        let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": "Forbidden"});
        return (code, Json(status)).into_response();
    }
    let Some(place) = Place::of(path) else {
        return missing();
    };
    let number = |name: &str| {
        let mut words = uri
            .query()?
            .split('&')
            .filter_map(|word| word.split_once('='));
        let found = words.find(|(word, _)| *word == name)?;
        found.1.parse::<usize>().ok()
    };
    let object = || serde_json::from_slice::<Value>(&body).ok();
    let answer = match (method, place.name) {
        (Method::GET, None)
            if uri
                .query()
                .is_some_and(|query| query.contains("watch=true")) =>
        {
            let seen = number("resourceVersion").unwrap_or_default();
            return objects.watch(path.to_owned(), seen).into_response();
        }
        (Method::GET, None) => Some(objects.list(&place)),
        // A patch is taken and changes nothing.
        (Method::GET | Method::PATCH, Some(_)) => objects.lock().objects.get(path).cloned(),
        (Method::POST, None) => object().and_then(|object| {
            let name = object["metadata"]["name"].as_str()?.to_owned();
            objects.change(&format!("{path}/{name}"), Some(object))
        }),
        (Method::PUT, Some(_)) => object().and_then(|object| objects.change(path, Some(object))),
        (Method::DELETE, Some(_)) => objects.change(path, None),
        _ => None,
    };
    answer.map_or_else(missing, |answer| Json(answer).into_response())
}

impl Kubernetes {
    /// Starts it with the control plane's Configuration, in the namespace
    /// `default`.
    pub async fn start() -> Result<Kubernetes> {
        let objects = Objects {
            kept: Arc::default(),
            changes: watch::Sender::new(0),
        };
        let router = Router::new().fallback(answer).with_state(objects.clone());
        let server = HttpApp::start(router).await?;
        let kubeconfig = json!({
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", server.port())}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "users": [{"name": "c", "user": {}}],
            "current-context": "c",
        });
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string())?;
        let cluster = Kubernetes {
            objects,
            folder,
            _server: server,
        };
        let configuration = json!({"kind": "Configuration", "spec": {}});
        cluster.put("configurations", "default", "daprsystem", configuration);
        Ok(cluster)
    }

    /// A kubeconfig, and a place for further files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// Makes or replaces a resource of Dapr.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, object: Value) {
        self.put_at(&resource(plural, namespace, name), object);
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.objects
            .change(&resource(plural, namespace, name), None);
    }

    /// The same for any object, by its path in the API.
    pub fn put_at(&self, path: &str, object: Value) {
        self.objects.change(path, Some(object));
    }

    /// Makes or replaces a secret of one key, which is `value`.
    pub fn put_secret(&self, namespace: &str, name: &str, value: &str) {
        let data = base64::engine::general_purpose::STANDARD.encode(value);
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        self.put_at(&path, json!({"kind": "Secret", "data": {"value": data}}));
    }

    /// The objects of a collection, by its path in the API.
    pub fn objects(&self, collection: &str) -> Vec<Value> {
        let place = Place::of(collection);
        let listed = place.map(|place| self.objects.list(&place)["items"].take());
        serde_json::from_value(listed.unwrap_or_default()).unwrap_or_default()
    }

    /// Answers a path with this status from now on.
    pub fn refuse(&self, path: &str, status: StatusCode) {
        self.objects.lock().refused.insert(path.to_owned(), status);
    }

    /// Method, path and query of the requests so far that have this text in them.
    pub fn requests(&self, text: &str) -> Vec<String> {
        let kept = self.objects.lock();
        let found = kept.requests.iter().filter(|asked| asked.contains(text));
        found.cloned().collect()
    }
}

/// Subscriptions are of a younger version than the rest.
fn resource(plural: &str, namespace: &str, name: &str) -> String {
    let version = if plural == "subscriptions" {
        "v2alpha1"
    } else {
        "v1alpha1"
    };
    format!("/apis/dapr.io/{version}/namespaces/{namespace}/{plural}/{name}")
}
