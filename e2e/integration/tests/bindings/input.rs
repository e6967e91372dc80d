use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use http::{Method, StatusCode};
use outrider_harness::{Daprd, GrpcApp, HttpApp, Seen, wait};
use outrider_proto::runtime::v1 as wire;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use wire::app_callback_server::AppCallback;

use super::component;

/// Fires every tenth of a second.
fn cron(name: &str, more: &str) -> String {
    let metadata = format!("{{name: schedule, value: '@every 100ms'}}{more}");
    component(name, "bindings.cron", &metadata)
}

const INPUT: &str = ", {name: direction, value: input}";

/// Events that were delivered to a path.
fn delivered(app: &HttpApp, path: &str) -> Vec<Seen> {
    let mut seen = app.seen();
    seen.retain(|seen| seen.method == "POST" && seen.target == path);
    seen
}

async fn until_delivered(app: &HttpApp, path: &str, least: usize) -> Result<Vec<Seen>> {
    wait::until(&format!("{least} events at {path}"), || async {
        let seen = delivered(app, path);
        (seen.len() >= least).then_some(seen)
    })
    .await
}

fn asked(app: &HttpApp, path: &str) -> usize {
    let seen = app.seen();
    let asked = seen.iter();
    asked
        .filter(|seen| seen.method == "OPTIONS" && seen.target == path)
        .count()
}

#[tokio::test]
async fn an_http_application_gets_the_events_that_it_has_a_route_for() -> Result<()> {
    let router =
        Router::new().fallback(
            async |method: Method, uri: http::Uri| match (method, uri.path()) {
                (Method::OPTIONS, "/refused") => StatusCode::NOT_FOUND,
                (Method::OPTIONS, "/only/posts") => StatusCode::METHOD_NOT_ALLOWED,
                _ => StatusCode::OK,
            },
        );
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .env("APP_API_TOKEN", "secret")
        .resource(&cron("wanted", ""))
        .resource(&cron("refused", ""))
        .resource(&cron("routed", ", {name: route, value: /only/posts}"))
        .resource(&cron("outwards", ", {name: direction, value: output}"))
        .start()
        .await?;
    let events = until_delivered(&app, "/wanted", 2).await?;
    until_delivered(&app, "/only/posts", 2).await?;
    let event = &events[0];
    assert_eq!(event.header("content-type"), Some("application/json"));
    assert_eq!(event.header("dapr-api-token"), Some("secret"));
    assert_eq!(event.header("timezone"), Some("Local"));
    assert!(
        event
            .header("readtimeutc")
            .is_some_and(|t| t.ends_with(" +0000 UTC"))
    );
    daprd
        .line("app has not subscribed to binding refused.")
        .await?;
    assert_eq!(asked(&app, "/wanted"), 1);
    assert!(delivered(&app, "/refused").is_empty());
    assert_eq!(
        asked(&app, "/outwards") + delivered(&app, "/outwards").len(),
        0
    );

    let metadata = daprd.http().get("/v1.0/metadata").await?.json()?;
    let components = metadata["components"].as_array().expect("a list");
    let wanted = components.iter().find(|c| c["name"] == "wanted");
    let wanted = wanted.expect("is there");
    assert_eq!(wanted["capabilities"], json!(["INPUT_BINDING"]));
    let metrics = outrider_harness::http::Client::new(daprd.metrics_port());
    let metrics = metrics.get("/").await?.text();
    let mut lines = metrics.lines();
    let counted = lines.any(|line| {
        let parts = ["component=\"wanted\"", "success=\"true\""];
        line.starts_with("dapr_component_input_binding_count{")
            && parts.iter().all(|part| line.contains(part))
    });
    assert!(counted, "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_direction_of_input_is_read_without_asking() -> Result<()> {
    let app = HttpApp::start(Router::new().fallback(async || StatusCode::OK)).await?;
    let _daprd = Daprd::builder()
        .app(&app)
        .resource(&cron("b", INPUT))
        .start()
        .await?;
    until_delivered(&app, "/b", 1).await?;
    assert_eq!(asked(&app, "/b"), 0);
    Ok(())
}

#[tokio::test]
async fn the_application_is_asked_until_it_answers() -> Result<()> {
    let slow = Arc::new(AtomicBool::new(true));
    let router = Router::new().fallback({
        let slow = slow.clone();
        async move |method: Method| {
            if method == Method::OPTIONS && slow.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            StatusCode::OK
        }
    });
    let app = HttpApp::start(router).await?;
    // It is ready although the application has not said what it wants.
    let daprd = Daprd::builder()
        .app(&app)
        .flag("--app-binding-options-timeout=200ms")
        .resource(&cron("b", ""))
        .start()
        .await?;
    daprd.line("failed to read from bindings: ").await?;
    assert!(delivered(&app, "/b").is_empty());
    slow.store(false, Ordering::SeqCst);
    until_delivered(&app, "/b", 1).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_read_while_the_application_is_unhealthy() -> Result<()> {
    let health = Arc::new(AtomicU16::new(500));
    let router = Router::new().fallback({
        let health = health.clone();
        async move |uri: http::Uri| match uri.path() {
            "/healthz" => {
                StatusCode::from_u16(health.load(Ordering::SeqCst)).expect("three digits")
            }
            _ => StatusCode::OK,
        }
    });
    let app = HttpApp::start(router).await?;
    let _daprd = Daprd::builder()
        .app(&app)
        .flag("--enable-app-health-check")
        .flag("--app-health-probe-interval=1")
        .flag("--app-health-threshold=1")
        .resource(&cron("b", INPUT))
        .start()
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(delivered(&app, "/b").is_empty());
    health.store(200, Ordering::SeqCst);
    until_delivered(&app, "/b", 1).await?;
    health.store(500, Ordering::SeqCst);
    wait::until("events end", || async {
        let before = delivered(&app, "/b").len();
        tokio::time::sleep(Duration::from_millis(400)).await;
        (delivered(&app, "/b").len() == before).then_some(())
    })
    .await?;
    let before = delivered(&app, "/b").len();
    health.store(200, Ordering::SeqCst);
    until_delivered(&app, "/b", before + 1).await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_saves_state_and_goes_to_other_bindings() -> Result<()> {
    let calls = Arc::new(AtomicUsize::new(0));
    let router = Router::new().fallback({
        let calls = calls.clone();
        async move |uri: http::Uri| {
            let first = uri.path() == "/b" && calls.fetch_add(1, Ordering::SeqCst) == 0;
            let answer = match first {
                true => json!({
                    "storeName": "store",
                    "state": [{"key": "k", "value": {"n": 1}}],
                    "to": ["one", "two"],
                    "concurrency": "parallel",
                    "data": {"for": "others"},
                }),
                false => Value::Null,
            };
            axum::Json(answer)
        }
    });
    let app = HttpApp::start(router).await?;
    let other = |path: &str| {
        let url = format!(
            "{{name: url, value: 'http://127.0.0.1:{}/{path}'}}",
            app.port()
        );
        component(path, "bindings.http", &url)
    };
    let daprd = Daprd::builder()
        .app(&app)
        .component("store", "state.in-memory")
        .resource(&other("one"))
        .resource(&other("two"))
        .resource(&cron("b", INPUT))
        .start()
        .await?;
    for path in ["/one", "/two"] {
        let seen = until_delivered(&app, path, 1).await?;
        assert_eq!(
            serde_json::from_slice::<Value>(&seen[0].body)?,
            json!({"for": "others"})
        );
    }
    let saved = wait::until("the state is saved", || async {
        let saved = daprd.http().get("/v1.0/state/store/k").await.ok()?;
        (saved.status == 200).then_some(saved)
    })
    .await?;
    assert_eq!(saved.json()?, json!({"n": 1}));
    Ok(())
}

#[tokio::test]
async fn a_delivery_that_fails_is_made_again_under_a_policy() -> Result<()> {
    let calls = Arc::new(AtomicUsize::new(0));
    let router = Router::new().fallback({
        let calls = calls.clone();
        async move |uri: http::Uri| {
            let of_binding = uri.path() == "/b";
            if of_binding && calls.fetch_add(1, Ordering::SeqCst) < 2 {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            // Any 2xx is a success.
            StatusCode::NO_CONTENT
        }
    });
    let app = HttpApp::start(router).await?;
    let policy = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: {retries: {often: {duration: 10ms, maxRetries: 5}}}\n  targets: {components: {b: {inbound: {retry: often}}}}\n";
    let once = "{name: schedule, value: '@every 1s'}, {name: direction, value: input}";
    let daprd = Daprd::builder()
        .app(&app)
        .resource(policy)
        .resource(&component("b", "bindings.cron", once))
        .start()
        .await?;
    daprd
        .line("Recovered processing operation component[b] input after 3 attempts")
        .await?;
    Ok(())
}

/// Wants the events of `wanted`, and sends what it answers to a binding.
#[derive(Default)]
struct Callback {
    events: Arc<std::sync::Mutex<Vec<wire::BindingEventRequest>>>,
    lists: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl AppCallback for Callback {
    async fn list_input_bindings(
        &self,
        _: Request<()>,
    ) -> Result<Response<wire::ListInputBindingsResponse>, Status> {
        // It comes later than the sidecar.
        if self.lists.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(Status::unavailable("not yet"));
        }
        let bindings = vec!["wanted".to_owned()];
        Ok(Response::new(wire::ListInputBindingsResponse { bindings }))
    }

    async fn on_binding_event(
        &self,
        request: Request<wire::BindingEventRequest>,
    ) -> Result<Response<wire::BindingEventResponse>, Status> {
        let mut events = self.events.lock().expect("nothing panicked");
        events.push(request.into_inner());
        Ok(Response::new(wire::BindingEventResponse {
            store_name: "store".into(),
            states: vec![outrider_proto::common::v1::StateItem {
                key: "k".into(),
                value: "v".into(),
                ..Default::default()
            }],
            to: vec!["files".into()],
            data: "from the application".into(),
            ..Default::default()
        }))
    }
}

#[tokio::test]
async fn a_grpc_application_lists_the_bindings_that_it_wants() -> Result<()> {
    let callback = Callback::default();
    let (events, lists) = (callback.events.clone(), callback.lists.clone());
    let app = GrpcApp::serving(callback).await?;
    let folder = tempfile::tempdir()?;
    let root = format!("{{name: rootPath, value: '{}'}}", folder.path().display());
    let daprd = Daprd::builder()
        .grpc_app(&app)
        .component("store", "state.in-memory")
        .resource(&component("files", "bindings.localstorage", &root))
        .resource(&cron("wanted", ""))
        .resource(&cron("unwanted", ""))
        .start()
        .await?;
    wait::until("two events", || async {
        let events = events.lock().expect("nothing panicked");
        (events.len() >= 2).then_some(())
    })
    .await?;
    {
        let events = events.lock().expect("nothing panicked");
        assert!(events.iter().all(|event| event.name == "wanted"));
        assert_eq!(events[0].metadata["timeZone"], "Local");
    }
    daprd
        .line("app has not subscribed to binding unwanted.")
        .await?;
    assert!(lists.load(Ordering::SeqCst) <= 3);
    let saved = daprd.http().get("/v1.0/state/store/k").await?;
    assert_eq!((saved.status, saved.text().as_str()), (200, "v"));
    let file = wait::until("a file is written", || async {
        let mut files = std::fs::read_dir(folder.path()).ok()?;
        let text = std::fs::read_to_string(files.next()?.ok()?.path()).ok()?;
        (!text.is_empty()).then_some(text)
    })
    .await?;
    assert_eq!(file, "from the application");
    Ok(())
}

#[tokio::test]
async fn bindings_come_and_go_while_the_sidecar_runs() -> Result<()> {
    let app = HttpApp::start(Router::new().fallback(async || StatusCode::OK)).await?;
    let daprd = Daprd::builder().app(&app).start().await?;
    let file = daprd.resources().join("late.yaml");
    std::fs::write(&file, cron("late", ""))?;
    until_delivered(&app, "/late", 1).await?;
    std::fs::write(&file, cron("late", ", {name: route, value: elsewhere}"))?;
    until_delivered(&app, "/elsewhere", 1).await?;
    std::fs::remove_file(&file)?;
    for path in ["/late", "/elsewhere"] {
        wait::until("events end", || async {
            let before = delivered(&app, path).len();
            tokio::time::sleep(Duration::from_millis(300)).await;
            (delivered(&app, path).len() == before).then_some(())
        })
        .await?;
    }
    Ok(())
}
