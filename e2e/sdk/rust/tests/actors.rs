use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::servers::{Server, placement, scheduler, start};
use crate::sidecar::{Client, Setup, Sidecar, free_port, refused, unique, until};

const TYPE: &str = "rust";

/// An application that hosts counters, with its sidecar.
struct Counters {
    client: Client,
    _app: Child,
    _sidecar: Sidecar,
    _servers: [Server; 2],
}

impl Counters {
    async fn start() -> Result<Counters> {
        let servers = [placement().await?, scheduler().await?];
        let port = free_port();
        let mut flags = vec![format!("--app-port={port}")];
        flags.extend(servers.iter().map(|server| server.address.clone()));
        let setup = Setup {
            flags,
            ..Setup::default()
        };
        let sidecar = setup.start()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_counter"));
        command
            .env("APP_PORT", port.to_string())
            .env("DAPR_GRPC_PORT", sidecar.grpc_port.to_string());
        let app = start(command)?;
        sidecar.healthy().await?;
        let counters = Counters {
            client: sidecar.client().await?,
            _app: app,
            _sidecar: sidecar,
            _servers: servers,
        };
        let add = || async { counters.add(&unique("first"), 1).await.ok() };
        until("the type is hosted", add).await?;
        Ok(counters)
    }

    async fn call(&self, id: &str, method: &str, data: Value) -> Result<Value, dapr::error::Error> {
        let mut client = self.client.clone();
        client.invoke_actor(TYPE, id, method, data, None).await
    }

    async fn add(&self, id: &str, n: i64) -> Result<i64, dapr::error::Error> {
        let mut client = self.client.clone();
        client
            .invoke_actor(TYPE, id, "Add", json!({"n": n}), None)
            .await
    }

    async fn fired(&self, id: &str) -> Result<BTreeMap<String, usize>, dapr::error::Error> {
        let mut client = self.client.clone();
        client.invoke_actor(TYPE, id, "Fired", (), None).await
    }
}

#[tokio::test]
async fn calls() -> Result<()> {
    let counters = Counters::start().await?;
    let (a, b) = (unique("a"), unique("b"));
    assert_eq!(counters.add(&a, 1).await?, 1);
    assert_eq!(counters.add(&a, 2).await?, 3);
    let other = json!({"type": TYPE, "id": b, "n": 5});
    assert_eq!(counters.call(&a, "Ask", other.clone()).await?, 5);
    assert_eq!(counters.call(&a, "Ask", other).await?, 10);
    // Calls of one actor take turns, so that none is lost.
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (mut client, id) = (counters.client.clone(), a.clone());
        calls.spawn(async move {
            client
                .invoke_actor::<_, _, _, i64>(TYPE, &id, "Add", json!({"n": 1}), None)
                .await
        });
    }
    let mut totals = Vec::new();
    for total in calls.join_all().await {
        totals.push(total?);
    }
    totals.sort_unstable();
    assert_eq!(totals, (4..24).collect::<Vec<i64>>());
    let failed = counters.call(&a, "Fail", Value::Null).await;
    refused(failed, "Internal", "it went wrong");
    Ok(())
}

#[tokio::test]
async fn timers_and_reminders() -> Result<()> {
    let counters = Counters::start().await?;
    for kind in ["timer", "reminder"] {
        let id = unique(kind);
        let alarm = |name| json!({"kind": kind, "name": name});
        let often = async |name: &str, times| {
            let fired = counters.fired(&id).await.ok()?;
            fired
                .get(&format!("{kind}:{name}"))
                .copied()
                .filter(|fired| *fired >= times)
        };
        counters.call(&id, "Watch", alarm("a")).await?;
        until("a fires", || often("a", 2)).await?;
        counters.call(&id, "Unwatch", alarm("a")).await?;
        let stopped = often("a", 0).await;
        counters.call(&id, "Watch", alarm("b")).await?;
        until("b fires", || often("b", 3)).await?;
        // One may have been on its way.
        assert!(often("a", 0).await <= stopped.map(|times| times + 1));
        counters.call(&id, "Unwatch", alarm("b")).await?;
    }
    Ok(())
}
