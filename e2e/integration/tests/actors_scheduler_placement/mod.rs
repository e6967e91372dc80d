//! Placement that a scheduler serves, as sidecars follow it.

mod double;
mod real;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::Path;
use axum::routing::{get, put};
use outrider_harness::{Builder, Daprd, HttpApp, Placement, wait};
use serde_json::json;

use double::Double;

const STORE: &str = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: actors}\nspec: {type: state.in-memory, version: v1, metadata: [{name: actorStateStore, value: \"true\"}]}\n";
/// How long actors may be without service when another one says where they are.
const CUT_OVER: Duration = Duration::from_secs(20);

/// An application with one type of actors, and its sidecar.
struct Host {
    app: HttpApp,
    daprd: Daprd,
}

async fn app() -> Result<HttpApp> {
    let method = |Path((_, method)): Path<(String, String)>| async move { format!("did {method}") };
    let config = || async { axum::Json(json!({"entities": ["cat"]})) };
    let router = Router::new()
        .route("/dapr/config", get(config))
        .route("/actors/cat/{id}", axum::routing::delete(|| async {}))
        .route("/actors/cat/{id}/method/remind/{name}", put(|| async {}))
        .route("/actors/cat/{id}/method/{method}", put(method));
    HttpApp::start(router).await
}

impl Host {
    /// Not ready yet.
    async fn spawn(settings: impl FnOnce(Builder) -> Builder) -> Result<Host> {
        let app = app().await?;
        let builder = Daprd::builder().app_id("cats").app(&app).resource(STORE);
        let daprd = settings(builder).spawn()?;
        Ok(Host { app, daprd })
    }

    /// With a scheduler and no placement service.
    async fn of(scheduler: &str) -> Result<Host> {
        let flag = format!("--scheduler-host-address={scheduler}");
        let host = Host::spawn(|builder| builder.flag(&flag)).await?;
        host.until_hosting().await?;
        Ok(host)
    }

    async fn until_hosting(&self) -> Result<()> {
        self.daprd.ready().await?;
        wait::until("the sidecar to host actors", || async {
            let answer = self.daprd.http().get("/v1.0/metadata").await.ok()?;
            let metadata = answer.json().ok()?;
            let runtime = &metadata["actorRuntime"];
            (runtime["hostReady"] == true && runtime["placement"] == "placement: connected")
                .then_some(())
        })
        .await
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.daprd.internal_port())
    }

    async fn call(&self, id: &str) -> Result<(u16, String)> {
        let path = format!("/v1.0/actors/cat/{id}/method/purr");
        let answer = self.daprd.http().post(&path, &json!({})).await?;
        Ok((answer.status, answer.text()))
    }

    async fn works(&self, id: &str) -> Result<()> {
        let (status, text) = self.call(id).await?;
        anyhow::ensure!((status, &*text) == (200, "did purr"), "{status} {text}");
        Ok(())
    }

    /// How often each actor was called here.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for seen in self.app.seen() {
            if let Some(path) = seen.target.strip_prefix("/actors/cat/")
                && let Some((id, "method/purr")) = path.split_once('/')
            {
                *calls.entry(id.to_owned()).or_default() += 1;
            }
        }
        calls
    }
}

fn ids() -> impl Iterator<Item = String> {
    (0..20).map(|id| id.to_string())
}

fn scheduler(double: &Double) -> String {
    format!("--scheduler-host-address={}", double.address())
}

fn placement(placement: &Placement) -> String {
    format!("--placement-host-address=127.0.0.1:{}", placement.port())
}

async fn until_followed(double: &Double, by: usize) -> Result<()> {
    let what = format!("{by} followers of {}", double.address());
    wait::until(&what, || async {
        (double.followers().len() == by).then_some(())
    })
    .await
}

#[tokio::test]
async fn actors_are_where_the_leader_has_them_and_move_when_a_host_leaves() -> Result<()> {
    let double = Double::start().await?;
    double.lead();
    let address = double.address();
    let (one, other) = tokio::try_join!(Host::of(&address), Host::of(&address))?;
    wait::until("both to know both", || async {
        (double.hosts_of("cat") == 2).then_some(())
    })
    .await?;
    for id in ids() {
        one.works(&id).await?;
        other.works(&id).await?;
    }
    let (here, there) = (one.calls(), other.calls());
    for id in ids() {
        let calls = (here.get(&id), there.get(&id));
        assert!(
            matches!(calls, (Some(2), None) | (None, Some(2))),
            "{id}: {calls:?}"
        );
    }
    assert!(!here.is_empty() && !there.is_empty());

    let begun = double.initials();
    let begun = begun
        .iter()
        .filter(|it| it.actor_address() == one.address());
    let begun: Vec<_> = begun.collect();
    assert!(begun.iter().any(|it| it.actor_types == ["cat"]));
    assert!(begun.iter().all(|it| it.supports_scheduler_placement));

    let stopping = other.daprd.stop();
    let calling = async {
        for id in ids() {
            one.works(&id).await?;
        }
        anyhow::Ok(())
    };
    let (_, calling) = tokio::join!(stopping, calling);
    calling?;
    for id in ids() {
        one.works(&id).await?;
    }
    assert_eq!(one.calls().len(), 20, "all are here now");
    Ok(())
}

#[tokio::test]
async fn a_broadcast_without_a_leader_changes_nothing_and_another_leader_is_followed() -> Result<()>
{
    let (first, second) = (Double::start().await?, Double::start().await?);
    first.lead();
    let host = Host::of(&first.address()).await?;
    host.works("1").await?;
    let (one, two) = (first.address(), second.address());
    first.announce(&[(&one, false, true), (&two, false, true)]);
    host.works("1").await?;
    assert_eq!(first.followers().len(), 1);
    first.announce(&[(&one, false, true), (&two, true, true)]);
    until_followed(&second, 1).await?;
    until_followed(&first, 0).await?;
    host.until_hosting().await?;
    host.works("1").await
}

#[tokio::test]
async fn sidecars_go_from_the_placement_service_to_schedulers_and_back() -> Result<()> {
    let double = Double::start().await?;
    let address = double.address();
    double.announce(&[(&address, false, false)]);
    let service = Placement::start(&[]).await?;
    let flags = (scheduler(&double), placement(&service));
    let settings = |builder: Builder| builder.flag(&flags.0).flag(&flags.1);
    let (one, other) = (Host::spawn(settings).await?, Host::spawn(settings).await?);
    tokio::try_join!(one.until_hosting(), other.until_hosting())?;
    for id in ids() {
        one.works(&id).await?;
    }
    assert!(double.followers().is_empty());
    let begun = double.initials();
    let configured = [format!("127.0.0.1:{}", service.port())];
    assert!(!begun.is_empty() && begun.iter().all(|it| it.placement_addresses == configured));

    service.stop().await?;
    double.lead();
    until_all_work(&one, &other).await?;
    until_followed(&double, 2).await?;

    let service = Placement::start(&[&format!("--port={}", service.port())]).await?;
    double.announce(&[(&address, false, false)]);
    until_followed(&double, 0).await?;
    until_all_work(&one, &other).await?;
    drop(service);
    Ok(())
}

/// Calls are answered again, by every sidecar, soon.
async fn until_all_work(one: &Host, other: &Host) -> Result<()> {
    let begun = Instant::now();
    for host in [one, other] {
        for id in ids() {
            wait::until("the actor to be somewhere", || async {
                host.works(&id).await.ok()
            })
            .await?;
        }
    }
    let took = begun.elapsed();
    anyhow::ensure!(took < CUT_OVER, "it took {took:?}");
    Ok(())
}

#[tokio::test]
async fn without_a_placement_service_and_a_scheduler_that_serves_calls_fail() -> Result<()> {
    let double = Double::start().await?;
    let address = double.address();
    double.announce(&[(&address, false, false)]);
    let flag = scheduler(&double);
    let host = Host::spawn(|builder| builder.flag(&flag)).await?;
    host.daprd.ready().await?;
    let metadata = host.daprd.http().get("/v1.0/metadata").await?.json()?;
    assert_eq!(metadata["actorRuntime"]["runtimeStatus"], "DISABLED");
    assert_eq!(
        metadata["actorRuntime"]["placement"],
        "placement: disconnected"
    );
    let (status, text) = host.call("1").await?;
    assert_eq!(status, 400);
    assert!(text.contains("ERR_ACTOR_NO_PLACEMENT"), "{text}");
    // One that could turns them on, and calls wait for its leader.
    double.announce(&[(&address, false, true)]);
    let line = "Scheduler reachable but no placement leader advertised";
    host.daprd.line(line).await?;
    wait::until("the sidecar to say what it hosts", || async {
        let begun = double.initials();
        begun
            .iter()
            .any(|it| it.actor_types == ["cat"])
            .then_some(())
    })
    .await?;
    let calling = host.call("1");
    let leading = async {
        wait::until("the call to wait", || async {
            let metadata = host
                .daprd
                .http()
                .get("/v1.0/metadata")
                .await
                .ok()?
                .json()
                .ok()?;
            (metadata["actorRuntime"]["runtimeStatus"] == "RUNNING").then_some(())
        })
        .await?;
        double.lead();
        anyhow::Ok(())
    };
    let (called, led) = tokio::join!(calling, leading);
    led?;
    assert_eq!(called?, (200, "did purr".to_owned()));
    Ok(())
}

#[tokio::test]
async fn schedulers_without_a_leader_are_waited_for_and_those_out_of_reach_are_not() -> Result<()> {
    let service = Placement::start(&[]).await?;
    let double = Double::start().await?;
    double.announce(&[(&double.address(), false, true)]);
    let flags = (scheduler(&double), placement(&service));
    let host = Host::spawn(|builder| {
        builder
            .flag(&flags.0)
            .flag(&flags.1)
            .flag("--actors-placement-startup-timeout=1s")
    })
    .await?;
    let line = "Scheduler reachable but no placement leader advertised";
    host.daprd.line(line).await?;
    let reached = Instant::now();
    drop(double);
    host.until_hosting().await?;
    assert!(reached.elapsed() >= Duration::from_secs(1));
    host.works("1").await?;
    host.daprd
        .line("Connected to placement service")
        .await
        .context("the service is followed")?;
    Ok(())
}
