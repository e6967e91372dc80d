//! Actors: two sidecars, a real placement, applications over HTTP and over a
//! stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, put};
use outrider_harness::{Daprd, HttpApp, Placement, Signal, wait};
use outrider_proto::runtime::v1 as wire;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use wire::subscribe_actor_events_request_alpha1::RequestType as Said;
use wire::subscribe_actor_events_response_alpha1::ResponseType as Asked;

const STORE: &str = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: actors}\nspec: {type: state.in-memory, version: v1, metadata: [{name: actorStateStore, value: \"true\"}]}\n";

/// An application with one type. Calls of its method `hold` wait for `release`.
struct App {
    http: HttpApp,
    /// Calls that are under way in one actor, at most.
    most: Arc<AtomicI64>,
    release: Arc<Notify>,
}

async fn app(config: Value) -> Result<App> {
    let (now, most) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let release = Arc::new(Notify::new());
    let (held, highest) = (release.clone(), most.clone());
    let method = move |Path((_, _, method)): Path<(String, String, String)>| async move {
        let running = now.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(running, Ordering::SeqCst);
        if method == "hold" {
            held.notified().await;
        }
        now.fetch_sub(1, Ordering::SeqCst);
        match &*method {
            "refuse" => (StatusCode::BAD_GATEWAY, "no".to_owned()),
            method => (StatusCode::OK, format!("did {method}")),
        }
    };
    let router = Router::new()
        .route(
            "/dapr/config",
            get(move || async move { axum::Json(config) }),
        )
        .route("/actors/{kind}/{id}", axum::routing::delete(|| async {}))
        .route("/actors/{kind}/{id}/method/{method}", put(method));
    Ok(App {
        http: HttpApp::start(router).await?,
        most,
        release,
    })
}

fn cats() -> Value {
    json!({"entities": ["cat"]})
}

async fn hosted(app: &App, placement: &Placement) -> Result<Daprd> {
    let address = format!("--placement-host-address=127.0.0.1:{}", placement.port());
    let builder = Daprd::builder().app_id("cats").app(&app.http);
    let daprd = builder.resource(STORE).flag(&address).start().await?;
    until_hosts(&daprd).await?;
    Ok(daprd)
}

async fn until_hosts(daprd: &Daprd) -> Result<()> {
    wait::until("the sidecar to host actors", || async {
        let metadata = daprd.http().get("/v1.0/metadata").await.ok()?.json().ok()?;
        (metadata["actorRuntime"]["hostReady"] == true).then_some(())
    })
    .await
}

async fn call(daprd: &Daprd, id: &str, method: &str) -> Result<(u16, String)> {
    let path = format!("/v1.0/actors/cat/{id}/method/{method}");
    let answer = daprd.http().post(&path, &json!({})).await?;
    Ok((answer.status, answer.text()))
}

fn calls(app: &App, id: &str) -> usize {
    let path = format!("/actors/cat/{id}/method/");
    let seen = app.http.seen();
    seen.iter()
        .filter(|seen| seen.target.starts_with(&path))
        .count()
}

fn gone(app: &App, id: &str) -> bool {
    let path = format!("/actors/cat/{id}");
    let mut seen = app.http.seen().into_iter();
    seen.any(|seen| seen.method == "DELETE" && seen.target == path)
}

#[tokio::test]
async fn actors_are_spread_and_called_from_everywhere() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let (one, other) = (app(cats()).await?, app(cats()).await?);
    let (first, second) = (
        hosted(&one, &placement).await?,
        hosted(&other, &placement).await?,
    );
    for id in 0..20 {
        let id = id.to_string();
        for daprd in [&first, &second] {
            let (status, text) = call(daprd, &id, "purr").await?;
            assert_eq!((status, &*text), (200, "did purr"));
        }
        let seen = (calls(&one, &id), calls(&other, &id));
        assert!(matches!(seen, (2, 0) | (0, 2)), "{id}: {seen:?}");
    }
    assert!(!one.http.seen().is_empty() && !other.http.seen().is_empty());
    let (status, text) = call(&first, "1", "refuse").await?;
    assert_eq!(status, 500);
    assert!(
        text.contains("error from actor service: (502) no"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn an_actor_does_one_thing_at_a_time_and_others_do_not_wait() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let app = app(cats()).await?;
    let daprd = hosted(&app, &placement).await?;
    let all = (0..4).map(|_| call(&daprd, "1", "hold"));
    let calling = futures_util::future::try_join_all(all);
    let checking = async {
        wait::until("the first call", || async {
            (calls(&app, "1") == 1).then_some(())
        })
        .await?;
        let (status, _) = call(&daprd, "2", "purr").await?;
        assert_eq!(status, 200);
        // The other one was beside it.
        assert_eq!(app.most.swap(0, Ordering::SeqCst), 2);
        for more in 2..=4 {
            app.release.notify_one();
            let next = || async { (calls(&app, "1") == more).then_some(()) };
            wait::until("the next call", next).await?;
        }
        app.release.notify_one();
        anyhow::Ok(())
    };
    let (answers, ()) = tokio::try_join!(calling, checking)?;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(app.most.load(Ordering::SeqCst), 1);
    Ok(())
}

#[tokio::test]
async fn a_chain_passes_and_one_that_is_too_deep_leaves_the_actor_free() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let reentrant =
        json!({"entities": ["cat"], "reentrancy": {"enabled": true, "maxStackDepth": 2}});
    let app = app(reentrant).await?;
    let daprd = hosted(&app, &placement).await?;
    let http = daprd.http().with("dapr-reentrancy-id", "x");
    let path = "/v1.0/actors/cat/1/method";
    let (hold, purr) = (format!("{path}/hold"), format!("{path}/purr"));
    let body = json!({});
    let both = async { tokio::try_join!(http.post(&hold, &body), http.post(&hold, &body)) };
    let checking = async {
        wait::until("both calls", || async {
            (calls(&app, "1") == 2).then_some(())
        })
        .await?;
        let deep = http.post(&purr, &body).await?;
        assert_eq!(deep.status, 500);
        assert_eq!(deep.error()?.0, "ERR_ACTOR_STACK_DEPTH");
        app.release.notify_waiters();
        anyhow::Ok(())
    };
    tokio::try_join!(both, checking)?;
    let (status, _) = call(&daprd, "1", "purr").await?;
    assert_eq!(status, 200);
    Ok(())
}

#[tokio::test]
async fn an_actor_moves_when_its_host_leaves_and_is_told() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let (one, other) = (app(cats()).await?, app(cats()).await?);
    let (first, second) = (
        hosted(&one, &placement).await?,
        hosted(&other, &placement).await?,
    );
    let mut moving = None;
    for id in (0..50).map(|id| id.to_string()) {
        call(&first, &id, "purr").await?;
        if calls(&one, &id) == 1 {
            moving = Some(id);
            break;
        }
    }
    let id = moving.context("no actor is on the first host")?;
    assert_eq!(first.stop().await?, Some(0));
    assert!(gone(&one, &id));
    let (status, _) = call(&second, &id, "purr").await?;
    assert_eq!((status, calls(&other, &id)), (200, 1));
    Ok(())
}

#[tokio::test]
async fn the_state_of_an_actor_is_written_by_itself_only() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let app = app(cats()).await?;
    let daprd = hosted(&app, &placement).await?;
    let http = daprd.http();
    let path = "/v1.0/actors/cat/1/state";
    let write = json!([{"operation": "upsert", "request": {"key": "a", "value": {"b": 1}}}]);
    let early = http.post(path, &write).await?;
    assert_eq!(early.status, 400);
    assert_eq!(
        early.error()?,
        (
            "ERR_ACTOR_INSTANCE_MISSING".to_owned(),
            "actor instance is missing".to_owned()
        )
    );
    assert_eq!(http.get(&format!("{path}/a")).await?.status, 204);
    call(&daprd, "1", "purr").await?;
    assert_eq!(http.post(path, &write).await?.status, 204);
    assert_eq!(
        http.get(&format!("{path}/a")).await?.json()?,
        json!({"b": 1})
    );
    let unknown = json!([{"operation": "x", "request": {"key": "a"}}]);
    let refused = http.post(path, &unknown).await?;
    assert_eq!(refused.error()?.0, "ERR_ACTOR_STATE_TRANSACTION_SAVE");
    let remove = json!([{"operation": "delete", "request": {"key": "a"}}]);
    assert_eq!(http.post(path, &remove).await?.status, 204);
    assert_eq!(http.get(&format!("{path}/a")).await?.status, 204);
    Ok(())
}

#[tokio::test]
async fn calls_go_on_after_placement_was_killed_and_actors_stay_if_it_is_back_soon() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let app = app(cats()).await?;
    let daprd = hosted(&app, &placement).await?;
    call(&daprd, "1", "purr").await?;
    let port = format!("--port={}", placement.port());
    placement.signal(Signal::KILL)?;
    placement.end().await?;
    let flags = [port.as_str()];
    let (answer, placement) = tokio::join!(call(&daprd, "1", "purr"), Placement::start(&flags));
    assert_eq!(answer?.0, 200);
    assert_eq!(calls(&app, "1"), 2);
    assert!(!gone(&app, "1"), "it was nowhere else");
    // Without placement actors go after a while, and calls end.
    let placement = placement?;
    placement.signal(Signal::KILL)?;
    placement.end().await?;
    wait::until("the actor to go", || async {
        gone(&app, "1").then_some(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn actors_go_at_once_when_placement_is_silent() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let app = app(cats()).await?;
    let daprd = hosted(&app, &placement).await?;
    call(&daprd, "1", "purr").await?;
    placement.signal(Signal::STOP)?;
    let frozen = Instant::now();
    let left = wait::until("the actor to go", || async {
        gone(&app, "1").then_some(())
    });
    let left = left.await;
    // Nothing is heard for 3.5 s; of a stream that was closed they would stay for
    // 3 s more.
    let took = frozen.elapsed();
    placement.signal(Signal::CONT)?;
    left?;
    assert!(took < Duration::from_millis(5500), "{took:?}");
    assert_eq!(call(&daprd, "1", "purr").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn a_sidecar_that_stood_still_gives_its_actors_up() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let app = app(cats()).await?;
    let daprd = hosted(&app, &placement).await?;
    call(&daprd, "1", "purr").await?;
    daprd.signal(Signal::STOP)?;
    // The fault itself takes that long.
    tokio::time::sleep(Duration::from_secs(2)).await;
    daprd.signal(Signal::CONT)?;
    wait::until("the actor to go", || async {
        gone(&app, "1").then_some(())
    })
    .await?;
    assert_eq!(call(&daprd, "1", "purr").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn a_call_of_a_type_that_nobody_hosts_ends() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let app = app(cats()).await?;
    let daprd = hosted(&app, &placement).await?;
    let started = Instant::now();
    let answer = daprd
        .http()
        .post("/v1.0/actors/dog/1/method/bark", &json!({}))
        .await?;
    assert_eq!(answer.status, 500);
    let (code, message) = answer.error()?;
    assert_eq!(code, "ERR_ACTOR_INVOKE_METHOD");
    assert_eq!(
        message,
        "error invoke actor method: failed to lookup actor: api error: code = FailedPrecondition desc = did not find address for actor 'dog/1'"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    let internal = "/v1.0/actors/dapr.internal.default.x.workflow/1/method/Add";
    let refused = daprd.http().post(internal, &json!({})).await?;
    assert_eq!(
        (refused.status, &*refused.error()?.0),
        (403, "ERR_ACTOR_TYPE_RESERVED")
    );
    Ok(())
}

#[tokio::test]
async fn an_application_hosts_actors_over_streams_until_the_last_one_ends() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let address = format!("--placement-host-address=127.0.0.1:{}", placement.port());
    let builder = Daprd::builder().resource(STORE).flag("--app-protocol=grpc");
    let daprd = builder.flag(&address).start().await?;
    let (first_tx, mut first) = stream(&daprd).await?;
    let (second_tx, second) = stream(&daprd).await?;
    let http = daprd.http();
    let path = "/v1.0/actors/cat/1/method/purr";
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        while let Ok(Some(event)) = first.message().await {
            if let Some(Asked::InvokeRequest(request)) = event.response_type {
                let answer = wire::SubscribeActorEventsRequestInvokeResponseAlpha1 {
                    id: request.id,
                    data: format!("{} {}", request.actor_id, request.method).into(),
                    ..Default::default()
                };
                let _ = first_tx.send(said(Said::InvokeResponse(answer))).await;
            }
        }
    });
    // The newest one serves; it goes, and the other one does.
    drop((second_tx, second));
    let answers = || async {
        let answer = http.post(path, &json!({})).await.ok()?;
        (answer.status == 200 && answer.text() == "1 purr").then_some(())
    };
    wait::until("the other stream to serve", answers).await?;
    drop(answering);
    let refuses =
        || async { (http.post(path, &json!({})).await.ok()?.status == 500).then_some(()) };
    wait::until("nobody to serve", refuses).await
}

type Requests = tokio::sync::mpsc::Sender<wire::SubscribeActorEventsRequestAlpha1>;
type Events = tonic::Streaming<wire::SubscribeActorEventsResponseAlpha1>;

/// A stream that hosts cats, once it does.
async fn stream(daprd: &Daprd) -> Result<(Requests, Events)> {
    let (requests, receiver) = tokio::sync::mpsc::channel(8);
    let first = wire::SubscribeActorEventsRequestInitialAlpha1 {
        entities: vec!["cat".to_owned()],
        ..Default::default()
    };
    requests.send(said(Said::InitialRequest(first))).await?;
    let mut client = daprd.grpc().await?;
    let events = client
        .subscribe_actor_events_alpha1(ReceiverStream::new(receiver))
        .await?;
    let mut events = events.into_inner();
    let ready = events.message().await?.context("no answer")?;
    assert!(matches!(
        ready.response_type,
        Some(Asked::InitialResponse(_))
    ));
    Ok((requests, events))
}

fn said(said: Said) -> wire::SubscribeActorEventsRequestAlpha1 {
    wire::SubscribeActorEventsRequestAlpha1 {
        request_type: Some(said),
    }
}
