//! Against a server without versions, that closes watches and lists at any time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body as Answer;
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::broadcast;

use super::*;

#[derive(Default)]
struct Server {
    /// The answer to lists; nothing for 404.
    list: Option<String>,
    /// Bodies of the next watches, before they are closed; without one they are closed at once.
    watches: VecDeque<String>,
    lists: usize,
    queries: Vec<String>,
}

type SharedServer = Arc<Mutex<Server>>;

async fn answer(Shared(server): Shared<SharedServer>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let mut server = server.lock().unwrap();
    server.queries.push(query.clone());
    if !query.contains("watch=true") {
        server.lists += 1;
        return match &server.list {
            Some(list) => list.clone().into_response(),
            None => (StatusCode::NOT_FOUND, "404 page not found").into_response(),
        };
    }
    match server.watches.pop_front() {
        // In pieces of three bytes.
        Some(text) => {
            let pieces: Vec<_> = text
                .as_bytes()
                .chunks(3)
                .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
                .collect();
            Answer::from_stream(futures_util::stream::iter(pieces)).into_response()
        }
        None => Answer::empty().into_response(),
    }
}

struct Fixture {
    server: SharedServer,
    store: Store,
    changes: broadcast::Receiver<Change>,
    stopping: CancellationToken,
    driver: tokio::task::JoinHandle<()>,
}

async fn fixture(list: Option<Value>) -> Fixture {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server: SharedServer = Arc::default();
    server.lock().unwrap().list = list.map(|list| list.to_string());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/apis/dapr.io/v1alpha1/components", get(answer))
        .with_state(server.clone());
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    // The fixture ends both.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    });
    let client = Client::try_from(kube::Config::new(
        format!("http://{address}").parse().unwrap(),
    ))
    .unwrap();
    let collection = Collection {
        version: "/apis/dapr.io/v1alpha1",
        plural: "components",
    };
    let (store, driver) = new(client, Interest::whole(collection, None));
    let changes = store.subscribe();
    #[allow(clippy::disallowed_methods)]
    let driver = tokio::spawn(driver.run(stopping.clone()));
    tokio::time::timeout(Duration::from_secs(10), store.synced())
        .await
        .unwrap();
    Fixture {
        server,
        store,
        changes,
        stopping,
        driver,
    }
}

impl Fixture {
    async fn next(&mut self) -> (char, String, Value) {
        match tokio::time::timeout(Duration::from_secs(10), self.changes.recv())
            .await
            .unwrap()
            .unwrap()
        {
            Change::Created(new) => ('+', new.name.clone(), new.json["spec"].clone()),
            Change::Updated { new, .. } => ('~', new.name.clone(), new.json["spec"].clone()),
            Change::Deleted(old) => ('-', old.name.clone(), old.json["spec"].clone()),
        }
    }

    async fn end(self) {
        self.stopping.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.driver)
            .await
            .unwrap()
            .unwrap();
    }
}

fn component(name: &str, spec: u32) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

#[tokio::test]
async fn changes_are_seen_once_from_a_server_without_versions_that_closes_watches() {
    let mut fixture = fixture(Some(json!({"items": null}))).await;
    assert_eq!(fixture.store.list(None), []);

    // Only a list shows it.
    fixture.server.lock().unwrap().list = Some(json!({"items": [component("a", 1)]}).to_string());
    assert_eq!(fixture.next().await, ('+', "a".into(), json!(1)));

    // Only watches show it; values follow each other without anything between, with `kind` unlike in lists.
    {
        let mut server = fixture.server.lock().unwrap();
        server.list = Some(json!({"items": [component("a", 2), component("b", 1)]}).to_string());
        let mut typed = component("a", 2);
        typed["kind"] = json!("Component");
        typed["apiVersion"] = json!("dapr.io/v1alpha1");
        let text = [
            json!({"type": "MODIFIED", "object": typed}),
            json!({"type": "ADDED", "object": component("b", 1)}),
        ];
        server
            .watches
            .push_back(text.map(|event| event.to_string()).concat());
    }
    assert_eq!(fixture.next().await, ('~', "a".into(), json!(2)));
    assert_eq!(fixture.next().await, ('+', "b".into(), json!(1)));

    // The same again, and then something new: the repetition made no change.
    let lists = {
        let mut server = fixture.server.lock().unwrap();
        let event = json!({"type": "MODIFIED", "object": component("b", 1)});
        server.watches.push_back(event.to_string());
        server.list = Some(json!({"items": [component("b", 1)]}).to_string());
        server.lists
    };
    assert_eq!(fixture.next().await, ('-', "a".into(), json!(2)));
    assert!(fixture.server.lock().unwrap().lists > lists);
    assert!(fixture.changes.try_recv().is_err());
    fixture.end().await;
}

#[tokio::test]
async fn a_watch_continues_from_the_version_where_it_ended() {
    let list = json!({"metadata": {"resourceVersion": "5"}, "items": [component("a", 1)]});
    let event = json!({"type": "MODIFIED", "object": {
        "metadata": {"name": "a", "namespace": "default", "resourceVersion": "7"}, "spec": 2,
    }});
    let mut fixture = fixture(Some(list)).await;
    fixture
        .server
        .lock()
        .unwrap()
        .watches
        .push_back(event.to_string());
    assert_eq!(fixture.next().await, ('~', "a".into(), json!(2)));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if fixture
            .server
            .lock()
            .unwrap()
            .queries
            .iter()
            .any(|query| query.contains("resourceVersion=7"))
        {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_kind_that_is_not_installed_is_absent_until_it_is() {
    let mut fixture = fixture(None).await;
    assert_eq!(fixture.store.state(), State::Absent);
    fixture.server.lock().unwrap().list = Some(json!({"items": [component("a", 1)]}).to_string());
    assert_eq!(fixture.next().await, ('+', "a".into(), json!(1)));
    assert_eq!(fixture.store.state(), State::Synced);
    fixture.end().await;
}

#[tokio::test]
async fn lists_slow_down_when_the_server_closes_watches_at_once() {
    let fixture = fixture(Some(json!({"items": [component("a", 1)]}))).await;
    let started = Instant::now();
    let deadline = started + Duration::from_secs(30);
    while fixture.server.lock().unwrap().lists < 6 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1500), "six lists in {took:?}");
    fixture.end().await;
}

#[tokio::test]
async fn an_invalid_namespace_is_an_error_before_anything_is_sent() {
    let collection = Collection {
        version: "/api/v1",
        plural: "pods",
    };
    let namespace = Some("default/secrets?".to_owned());
    let request = Interest::whole(collection, namespace).request("limit=1", true);
    assert!(matches!(request, Err(Error::Name(_))));
}
