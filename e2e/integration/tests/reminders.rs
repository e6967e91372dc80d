//! Reminders: kept by the scheduler, delivered to the actor wherever it is.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::{get, put};
use outrider_harness::http::Client;
use outrider_harness::{Daprd, HttpApp, Placement, Scheduler, Signal, wait};
use serde_json::{Value, json};

/// The type of the actors.
pub const KIND: &str = "later";
const STATE: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: actors
spec:
  type: state.in-memory
  version: v1
  metadata:
  - name: actorStateStore
    value: 'true'
";

/// What an application was called for: the actor, the name, and when.
#[derive(Debug, Clone)]
pub struct Fired {
    pub id: String,
    pub name: String,
    pub at: Instant,
    pub body: String,
}

/// An application that hosts actors, and its sidecar.
pub struct Host {
    pub daprd: Daprd,
    pub app: HttpApp,
    fired: Arc<Mutex<Vec<Fired>>>,
    /// How it answers.
    pub status: Arc<AtomicU16>,
    cancels: Arc<Mutex<Vec<String>>>,
}

impl Host {
    pub async fn start(
        placement: &Placement,
        scheduler: Option<&Scheduler>,
        config: Value,
    ) -> Result<Host> {
        let fired = Arc::new(Mutex::new(Vec::new()));
        let status = Arc::new(AtomicU16::new(200));
        let cancels = Arc::new(Mutex::new(Vec::<String>::new()));
        let (record, answer, cancel) = (fired.clone(), status.clone(), cancels.clone());
        let due = move |Path((id, name)): Path<(String, String)>, body: String| async move {
            let mut headers = HeaderMap::new();
            if locked(&cancel).contains(&name) {
                headers.insert("x-daprremindercancel", HeaderValue::from_static("true"));
            }
            let at = Instant::now();
            let fired = Fired { id, name, at, body };
            locked(&record).push(fired);
            let status = answer.load(Ordering::Relaxed);
            (StatusCode::from_u16(status).unwrap_or_default(), headers)
        };
        let ok = || async { StatusCode::OK };
        let path = |rest: &str| format!("/actors/{KIND}/{{id}}{rest}");
        let router = Router::new()
            .route(
                "/dapr/config",
                get(move || async move { axum::Json(config) }),
            )
            .route(&path(""), axum::routing::delete(ok))
            .route(&path("/method/{name}"), put(ok))
            .route(&path("/method/remind/{name}"), put(due.clone()))
            .route(&path("/method/timer/{name}"), put(due));
        let app = HttpApp::start(router).await?;
        let placement = format!("--placement-host-address=127.0.0.1:{}", placement.port());
        let mut builder = Daprd::builder()
            .app_id("laters")
            .app(&app)
            .resource(STATE)
            .flag(&placement);
        if let Some(scheduler) = scheduler {
            let address = format!("--scheduler-host-address=127.0.0.1:{}", scheduler.port());
            builder = builder.flag(&address);
        }
        let daprd = builder.start().await?;
        let host = Host {
            daprd,
            app,
            fired,
            status,
            cancels,
        };
        host.until_hosting().await?;
        Ok(host)
    }

    async fn until_hosting(&self) -> Result<()> {
        let http = self.http();
        wait::until("the host", || async {
            let metadata = http.get("/v1.0/metadata").await.ok()?.json().ok()?;
            (metadata["actorRuntime"]["hostReady"] == true).then_some(())
        })
        .await
    }

    pub fn http(&self) -> Client {
        self.daprd.http()
    }

    pub fn fired(&self) -> Vec<Fired> {
        locked(&self.fired).clone()
    }

    pub fn times(&self, id: &str, name: &str) -> usize {
        let fired = self.fired();
        fired
            .iter()
            .filter(|it| it.id == id && it.name == name)
            .count()
    }

    /// A reminder or timer of this name is canceled by what answers it.
    pub fn cancel(&self, name: &str) {
        locked(&self.cancels).push(name.to_owned());
    }

    pub async fn until_fired(&self, id: &str, name: &str, times: usize) -> Result<()> {
        wait::until(&format!("{times} ticks of {name} of {id}"), || async {
            (self.times(id, name) >= times).then_some(())
        })
        .await
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn config() -> Value {
    json!({"entities": [KIND]})
}

fn path(id: &str, name: &str) -> String {
    format!("/v1.0/actors/{KIND}/{id}/reminders/{name}")
}

async fn register(host: &Host, id: &str, name: &str, body: &Value) -> Result<()> {
    let answer = host.http().post(&path(id, name), body).await?;
    anyhow::ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(())
}

#[tokio::test]
async fn a_reminder_is_registered_found_delivered_and_gone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, Some(&scheduler), config()).await?;
    let http = host.http();

    let begun = Instant::now();
    let body = json!({"dueTime": "1s", "period": "R3/PT1S", "data": {"a": [1, "x"]}});
    register(&host, "1", "often", &body).await?;
    let found = http.get(&path("1", "often")).await?.json()?;
    let wanted = json!({
        "actorID": "1",
        "actorType": KIND,
        "data": {"a": [1, "x"]},
        "dueTime": "1s",
        "period": "@every 1s",
    });
    assert_eq!(found, wanted);
    let list = format!("/v1.0/actors/{KIND}/1/reminders");
    let mut named = wanted;
    named["name"] = json!("often");
    let listed = http.get(&list).await?.json()?;
    assert_eq!(listed, json!({"reminders": [named]}));
    wait::until("the end of the reminder", || async {
        let answer = http.get(&path("1", "often")).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await?;
    let fired = host.fired();
    assert_eq!(fired.len(), 3, "repeats are exact");
    for (tick, it) in fired.iter().enumerate() {
        let due = Duration::from_secs(1 + tick as u64);
        assert!(it.at - begun >= due, "tick {tick} is early");
        assert_eq!(
            it.body,
            r#"{"data":{"a":[1,"x"]},"dueTime":"","period":""}"#
        );
    }
    register(&host, "1", "plain", &json!({"dueTime": "0s"})).await?;
    host.until_fired("1", "plain", 1).await?;
    let last = host.fired().pop().context("a tick")?;
    assert_eq!(last.body, r#"{"dueTime":"","period":""}"#);
    Ok(())
}

#[tokio::test]
async fn what_is_deleted_overwritten_or_canceled_does_not_fire_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, Some(&scheduler), config()).await?;
    let http = host.http();
    let often = json!({"dueTime": "0s", "period": "100ms"});
    for name in ["deleted", "overwritten", "canceled"] {
        register(&host, "1", name, &often).await?;
        host.until_fired("1", name, 2).await?;
    }
    let once = json!({"dueTime": "1h", "overwrite": false});
    let exists = http.post(&path("1", "overwritten"), &once).await?;
    assert_eq!(exists.status, 409);
    assert_eq!(exists.error()?.0, "ERR_ACTOR_REMINDER_ALREADY_EXISTS");
    host.cancel("canceled");
    wait::until("the end of the canceled reminder", || async {
        let answer = http.get(&path("1", "canceled")).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await?;
    assert_eq!(http.delete(&path("1", "deleted")).await?.status, 204);
    assert_eq!(http.delete(&path("1", "deleted")).await?.status, 204);
    register(&host, "1", "overwritten", &json!({"dueTime": "1h"})).await?;
    // Ticks that were on their way have the turn of the actor before this one.
    register(&host, "1", "first", &json!({"dueTime": "0s"})).await?;
    host.until_fired("1", "first", 1).await?;
    let names = ["deleted", "overwritten", "canceled"];
    let before = names.map(|name| host.times("1", name));
    register(&host, "1", "last", &json!({"dueTime": "1s"})).await?;
    host.until_fired("1", "last", 1).await?;
    assert_eq!(names.map(|name| host.times("1", name)), before);
    Ok(())
}

#[tokio::test]
async fn a_reminder_that_fails_comes_again_as_its_policy_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, Some(&scheduler), config()).await?;
    let http = host.http();
    host.status.store(500, Ordering::Relaxed);
    for (name, policy, calls) in [
        ("unset", Value::Null, 4),
        (
            "twice",
            json!({"constant": {"interval": "0.1s", "maxRetries": 1}}),
            2,
        ),
        ("once", json!({"drop": {}}), 1),
    ] {
        let body = json!({"dueTime": "0s", "failurePolicy": policy});
        register(&host, "1", name, &body).await?;
        wait::until("the end of the reminder", || async {
            let answer = http.get(&path("1", name)).await.ok()?;
            (answer.status == 404).then_some(())
        })
        .await?;
        assert_eq!(host.times("1", name), calls, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn reminders_outlive_a_scheduler_that_is_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let port = scheduler.port();
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, Some(&scheduler), config()).await?;
    for index in 0..20 {
        let body = json!({"dueTime": "2s"});
        register(&host, &index.to_string(), "kept", &body).await?;
    }
    scheduler.signal(Signal::KILL)?;
    drop(scheduler);
    let _scheduler = Scheduler::on(port, folder.path()).await?;
    for index in 0..20 {
        host.until_fired(&index.to_string(), "kept", 1).await?;
    }
    Ok(())
}

#[tokio::test]
async fn reminders_go_where_their_actors_go() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let placement = Placement::start(&[]).await?;
    let first = Host::start(&placement, Some(&scheduler), config()).await?;
    let ids: Vec<String> = (0..20).map(|index| index.to_string()).collect();
    for id in &ids {
        register(
            &first,
            id,
            "tick",
            &json!({"dueTime": "0s", "period": "500ms"}),
        )
        .await?;
    }
    let second = Host::start(&placement, Some(&scheduler), config()).await?;
    let moved = || -> Vec<&String> {
        let there = |id: &&String| second.times(id, "tick") > 0;
        ids.iter().filter(there).collect()
    };
    wait::until("actors that have moved", || async {
        (moved().len() >= 3).then_some(())
    })
    .await?;
    // An actor is on one host at a time: those that have ticked there do not tick
    // here any more, however often they tick there.
    let there: Vec<(&String, usize)> = (moved().into_iter())
        .map(|id| (id, first.times(id, "tick")))
        .collect();
    for (id, here) in there {
        second
            .until_fired(id, "tick", second.times(id, "tick") + 3)
            .await?;
        assert_eq!(first.times(id, "tick"), here, "{id}");
    }
    first.daprd.signal(Signal::KILL)?;
    let here: Vec<usize> = ids.iter().map(|id| second.times(id, "tick")).collect();
    for (id, here) in ids.iter().zip(here) {
        second.until_fired(id, "tick", here + 2).await?;
    }
    Ok(())
}

#[tokio::test]
async fn reminders_that_cannot_be_say_why() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, None, config()).await?;
    let http = host.http();
    let disabled = "scheduler clients are disabled";
    let own = path("1", "r");
    for (answer, code, message) in [
        (
            http.post(&own, &json!({"dueTime": "1s"})).await?,
            "ERR_ACTOR_REMINDER_CREATE",
            format!("error creating actor reminder: {disabled}"),
        ),
        (
            http.get(&own).await?,
            "ERR_ACTOR_REMINDER_GET",
            format!(
                "error getting actor reminder: api error: code = Internal desc = failed to get job due to: {disabled}"
            ),
        ),
        (
            http.delete(&own).await?,
            "ERR_ACTOR_REMINDER_DELETE",
            format!("error deleting actor reminder: {disabled}"),
        ),
        (
            http.post(&own, &json!({"period": "P1D"})).await?,
            "ERR_ACTOR_REMINDER_CREATE",
            "error creating actor reminder: unsupported period format: P1D".to_owned(),
        ),
    ] {
        assert_eq!(answer.status, 500);
        assert_eq!(answer.error()?, (code.to_owned(), message));
    }
    let other = "/v1.0/actors/other/1/reminders/r";
    let refused = http.post(other, &json!({"dueTime": "1s"})).await?;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.error()?.0, "ERR_ACTOR_REMINDER_NON_HOSTED");
    let reserved = "/v1.0/actors/dapr.internal.default.laters.workflow/1/reminders/r";
    let refused = http.post(reserved, &json!({"dueTime": "1s"})).await?;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.error()?.0, "ERR_ACTOR_TYPE_RESERVED");
    let named = http
        .post(&path("1", "a%23b"), &json!({"dueTime": "1s"}))
        .await?;
    assert_eq!(named.status, 400);
    assert_eq!(
        named.error()?.1,
        r##"invalid request: name contains forbidden character: "a#b""##
    );
    Ok(())
}
