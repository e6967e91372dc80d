//! A host of each side, with the placement, the scheduler and the store of one of
//! them: actors are spread over both hosts, and each host calls those of the other.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::Path;
use axum::routing::{delete, get, put};
use outrider_harness::{Daprd, HttpApp, Redis, wait};
use serde_json::json;

use crate::programs::{Service, Side};
use crate::report::Report;

/// So many that hardly any spread leaves a host without one.
const ACTORS: usize = 40;

struct Host {
    sidecar: Daprd,
    app: HttpApp,
}

impl Host {
    async fn start(
        side: &Side,
        name: &'static str,
        placement: &Service,
        scheduler: &Service,
        store: &str,
    ) -> Result<Self> {
        let routes = Router::new()
            .route(
                "/dapr/config",
                get(async || axum::Json(json!({"entities": ["thing"]}))),
            )
            .route("/actors/{type}/{id}", delete(async || ()))
            .route(
                "/actors/{type}/{id}/method/{method}",
                put(
                    async move |Path((_, id, _)): Path<(String, String, String)>| {
                        format!("{name} has {id}")
                    },
                ),
            )
            .route("/actors/{type}/{id}/method/remind/{name}", put(async || ()));
        let app = HttpApp::start(routes).await?;
        let sidecar = side
            .sidecar("things")
            .app(&app)
            .resource(store)
            .flag(&format!(
                "--placement-host-address=127.0.0.1:{}",
                placement.port
            ))
            .flag(&format!(
                "--scheduler-host-address=127.0.0.1:{}",
                scheduler.port
            ))
            .start()
            .await?;
        Ok(Self { sidecar, app })
    }

    async fn call(&self, id: usize) -> Result<String> {
        let path = format!("/v1.0/actors/thing/{id}/method/who");
        let answer = self.sidecar.http().put(&path, &json!(1)).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(answer.text())
    }

    fn reminded(&self, id: usize) -> bool {
        let target = format!("/actors/thing/{id}/method/remind/soon");
        self.app.seen().iter().any(|seen| seen.target == target)
    }
}

async fn spread(first: &Side, second: &Side) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let redis = Redis::start().await?.context("redis-server is needed")?;
    let actors = ", {name: actorStateStore, value: 'true'}";
    let store = redis.component("store", "state.redis", actors);
    let (placement, scheduler) = (
        first.placement().await?,
        first.scheduler(folder.path()).await?,
    );
    let one = Host::start(first, "first", &placement, &scheduler, &store).await?;
    let other = Host::start(second, "second", &placement, &scheduler, &store).await?;
    // Both are known when both have some of the actors, and agree.
    wait::until("both hosts to have actors", || async {
        let mut owners = BTreeSet::new();
        for id in 0..ACTORS {
            let (here, there) = (one.call(id).await.ok()?, other.call(id).await.ok()?);
            if here != there {
                return None;
            }
            owners.extend(here.split(' ').next().map(str::to_owned));
        }
        (owners.len() == 2).then_some(())
    })
    .await?;
    for id in 0..ACTORS {
        let host = if id % 2 == 0 { &one } else { &other };
        let path = format!("/v1.0/actors/thing/{id}/reminders/soon");
        let answer = host
            .sidecar
            .http()
            .post(&path, &json!({"dueTime": "1s"}))
            .await?;
        ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    }
    wait::until("all reminders", || async {
        let came = |id| one.reminded(id) || other.reminded(id);
        (0..ACTORS).all(came).then_some(())
    })
    .await
}

pub async fn all(report: &mut Report, first: &Side, second: &Side) {
    let what = "actors and reminders; placement and scheduler of the first, hosts";
    report
        .check(what, first, second, spread(first, second))
        .await;
}
