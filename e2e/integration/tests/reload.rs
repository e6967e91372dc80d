//! Components that change while the sidecar runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::Method;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, HttpApp, wait};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

fn component(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, version: v1, metadata: [{metadata}]}}\n"
    )
}

fn sqlite(name: &str, path: &Path, more: &str) -> String {
    let connection = format!("{{name: connectionString, value: '{}'}}", path.display());
    component(name, "state.sqlite", &format!("{connection}{more}"))
}

async fn metadata(daprd: &Daprd) -> Result<Value> {
    daprd.http().get("/v1.0/metadata").await?.json()
}

/// Waits for the reason why a component is not in use as it should be, or for
/// there being none any more.
async fn failure(daprd: &Daprd, name: &str, text: Option<&str>) -> Result<()> {
    let key = format!("outriderComponentError.{name}");
    wait::until(&format!("{key} is {text:?}"), || async {
        let metadata = metadata(daprd).await.ok()?;
        let failure = metadata["extended"][&key].as_str();
        match (failure, text) {
            (Some(failure), Some(text)) => failure.contains(text),
            (failure, text) => failure.is_none() && text.is_none(),
        }
        .then_some(())
    })
    .await
}

async fn in_use(daprd: &Daprd, name: &str, kind: &str) -> Result<()> {
    wait::until(&format!("{name} is in use as {kind}"), || async {
        let metadata = metadata(daprd).await.ok()?;
        let mut all = metadata["components"].as_array()?.iter();
        all.any(|c| c["name"] == name && c["type"] == kind)
            .then_some(())
    })
    .await
}

async fn read(daprd: &Daprd, key: &str) -> Result<(u16, String)> {
    let answer = daprd
        .http()
        .get(&format!("/v1.0/state/store/{key}"))
        .await?;
    Ok((answer.status, answer.text()))
}

#[tokio::test]
async fn a_component_that_cannot_start_ends_nothing_and_is_tried_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let late = folder.path().join("late");
    let daprd = Daprd::builder()
        .resource(&component("store", "state.in-memory", ""))
        .start()
        .await?;
    let saved = daprd
        .http()
        .post("/v1.0/state/store", &json!([{"key": "k", "value": 1}]))
        .await?;
    assert_eq!(saved.status, 204);
    let file = daprd.resources().join("0.yaml");
    let other = daprd.resources().join("other.yaml");

    // A change that cannot work, a type that does not exist, and a store whose
    // folder comes later.
    std::fs::write(&file, component("store", "state.sqlite", ""))?;
    std::fs::write(&other, component("other", "state.nowhere", ""))?;
    std::fs::write(
        daprd.resources().join("late.yaml"),
        sqlite("late", &late.join("data.db"), ""),
    )?;
    failure(&daprd, "store", Some("missing connection string")).await?;
    failure(&daprd, "other", Some("couldn't find state store")).await?;
    failure(&daprd, "late", Some("state.sqlite")).await?;
    assert_eq!(read(&daprd, "k").await?, (200, "1".to_owned()));
    in_use(&daprd, "store", "state.in-memory").await?;
    let names: Vec<Value> = metadata(&daprd).await?["components"]
        .as_array()
        .context("no components")?
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["store"]);
    daprd
        .line("Component store (state.sqlite/v1) cannot be used, the one before stays in use")
        .await?;
    let updated = |what: &str| {
        let line = format!("Component updated: {what}");
        daprd.lines().iter().any(|l| l.contains(&line))
    };
    assert!(!updated("store (state.sqlite") && !updated("other") && !updated("late"));
    let page = Client::new(daprd.metrics_port())
        .get("/metrics")
        .await?
        .text();
    let series = format!(
        r#"dapr_runtime_component_init_fail_total{{app_id="{}",component="state.sqlite",componentName="store",reason="init"}} "#,
        daprd.app_id()
    );
    let counted = page.lines().any(|line| line.starts_with(&series));
    assert!(counted, "{page}");

    // The folder is made; no resource file changes.
    std::fs::create_dir(&late)?;
    in_use(&daprd, "late", "state.sqlite").await?;
    failure(&daprd, "late", None).await?;
    assert!(updated("late"));

    // A resource that needs a restart does not end the process either.
    std::fs::write(
        daprd.resources().join("endpoint.yaml"),
        "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: e}\nspec: {baseUrl: 'http://localhost:1'}\n",
    )?;
    wait::until("the endpoint is known", || async {
        (metadata(&daprd).await.ok()?["httpEndpoints"] == json!([{"name": "e"}])).then_some(())
    })
    .await?;
    failure(&daprd, "store", Some("missing connection string")).await?;
    assert_eq!(daprd.status(), None);

    std::fs::write(&file, component("store", "state.in-memory", ""))?;
    std::fs::remove_file(&other)?;
    in_use(&daprd, "store", "state.in-memory").await?;
    failure(&daprd, "store", None).await?;
    failure(&daprd, "other", None).await?;
    Ok(())
}

/// A state store whose server may take a minute to answer.
fn slow(name: &str, server: &TcpListener) -> Result<String> {
    let address = server.local_addr()?;
    let metadata = format!(
        "{{name: redisHost, value: '{address}'}}, {{name: redisPassword, value: ''}}, {{name: dialTimeout, value: 60s}}, {{name: readTimeout, value: 60s}}"
    );
    Ok(component(name, "state.redis", &metadata)
        .replace("version: v1", "version: v1, initTimeout: 60s"))
}

#[tokio::test]
async fn a_component_that_starts_slowly_blocks_no_other_change() -> Result<()> {
    // Takes connections and never answers.
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let mut connections = Vec::new();
    let daprd = Daprd::builder()
        .resource(&component("store", "state.in-memory", ""))
        .start()
        .await?;
    let file = |name: &str| daprd.resources().join(format!("{name}.yaml"));
    for name in ["first", "second"] {
        std::fs::write(file(name), slow(name, &server)?)?;
        let taken = tokio::time::timeout(wait::LONG, server.accept()).await;
        connections.push(taken.context("no connection")??);
    }
    std::fs::write(file("late"), component("late", "state.in-memory", ""))?;
    in_use(&daprd, "late", "state.in-memory").await?;
    // One that is still starting can be corrected and deleted.
    std::fs::write(file("first"), component("first", "state.in-memory", ""))?;
    in_use(&daprd, "first", "state.in-memory").await?;
    std::fs::remove_file(file("second"))?;
    let (mut second, _) = connections.pop().context("no connection")?;
    let closed = async { while second.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {} };
    let closed = tokio::time::timeout(wait::LONG, closed).await;
    closed.context("the start of the deleted component goes on")?;

    std::fs::write(file("third"), slow("third", &server)?)?;
    let taken = tokio::time::timeout(wait::LONG, server.accept()).await;
    connections.push(taken.context("no connection")??);
    assert_eq!(daprd.stop().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_second_resource_of_a_name_is_ignored_while_running() -> Result<()> {
    let daprd = Daprd::builder()
        .resource(&component("store", "state.in-memory", ""))
        .start()
        .await?;
    let second = daprd.resources().join("second.yaml");
    std::fs::write(&second, component("store", "pubsub.in-memory", ""))?;
    daprd
        .line("the resources stay in use as they were: failed to load resources from disk: duplicate definition of Component name store")
        .await?;
    in_use(&daprd, "store", "state.in-memory").await?;
    assert_eq!(daprd.status(), None);

    std::fs::write(&second, component("other", "pubsub.in-memory", ""))?;
    in_use(&daprd, "other", "pubsub.in-memory").await?;
    assert_eq!(daprd.stop().await?, Some(0));

    let store = component("store", "state.in-memory", "");
    let daprd = Daprd::builder().resource(&store).resource(&store).spawn()?;
    assert_eq!(daprd.end().await?.code(), Some(1));
    Ok(())
}

/// At once, unlike a write, between whose steps the file is empty.
fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, file)?)
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_a_removed_one_removes_its_resources() -> Result<()> {
    let store = component("store", "state.in-memory", "");
    let whole = format!(
        "{store}---\n{}---\n{}",
        subscription("true"),
        "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: e}\nspec: {baseUrl: 'http://localhost:1'}\n"
    );
    let daprd = Daprd::builder().resource(&whole).start().await?;
    let saved = daprd
        .http()
        .post("/v1.0/state/store", &json!([{"key": "k", "value": 1}]))
        .await?;
    assert_eq!(saved.status, 204);
    let before = metadata(&daprd).await?;
    let file = daprd.resources().join("0.yaml");
    let kept = |what: &str| daprd.lines().iter().filter(|l| l.contains(what)).count();

    let broken = store.replace("{name: store}", "{name: store");
    for (n, text) in [broken.as_str(), "", "apiVersion: dapr.io/v1alpha1\n"]
        .into_iter()
        .enumerate()
    {
        replace(&file, text)?;
        // Another change is seen no earlier.
        for late in ["x", "y"] {
            let name = format!("late{n}{late}");
            let late = daprd.resources().join(format!("{name}.yaml"));
            std::fs::write(&late, component(&name, "state.in-memory", ""))?;
            in_use(&daprd, &name, "state.in-memory").await?;
        }
        assert_eq!(read(&daprd, "k").await?, (200, "1".to_owned()), "{text}");
        let now = metadata(&daprd).await?;
        for resources in ["subscriptions", "httpEndpoints"] {
            assert_eq!(now[resources], before[resources], "{text}");
        }
        assert_eq!(kept("3 of the resources that it held stay in use"), n + 1);
    }
    assert_eq!(kept("Component deleted"), 0);
    assert_eq!(kept("triggering SIGHUP reload"), 0);

    // A restart that another resource demands changes nothing about it.
    let other = daprd.resources().join("endpoint.yaml");
    let endpoint = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: f}\nspec: {baseUrl: 'http://localhost:1'}\n";
    replace(&other, endpoint)?;
    wait::until("both endpoints are known", || async {
        let endpoints = metadata(&daprd).await.ok()?["httpEndpoints"].clone();
        (endpoints.as_array()?.len() == 2).then_some(())
    })
    .await?;
    in_use(&daprd, "store", "state.in-memory").await?;
    assert_eq!(
        metadata(&daprd).await?["subscriptions"],
        before["subscriptions"]
    );

    std::fs::remove_file(&file)?;
    wait::until("what the removed file held is gone", || async {
        let metadata = metadata(&daprd).await.ok()?;
        let mut components = metadata["components"].as_array()?.iter();
        (metadata["httpEndpoints"] == json!([{"name": "f"}])
            && metadata["subscriptions"].is_null()
            && components.all(|c| c["name"] != "store"))
        .then_some(())
    })
    .await
}

fn subscription(rule: &str) -> String {
    format!(
        "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {{name: orders}}\nspec: {{topic: t, pubsubname: bus, routes: {{rules: [{{match: '{rule}', path: /t}}]}}}}\n"
    )
}

#[tokio::test]
async fn a_wrong_rule_leaves_the_former_subscription_in_use() -> Result<()> {
    const RULE: &str = r#"timestamp(event.time) > timestamp("2020-01-01T00:00:00Z")"#;
    let app = HttpApp::start(Router::new().route("/t", post(async || "{}"))).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .resource(&component("bus", "pubsub.in-memory", ""))
        .resource(&subscription(RULE))
        .start()
        .await?;
    daprd
        .line("app is subscribed to the following topics")
        .await?;
    let delivered = async |id: u32| {
        let published = daprd.http().post("/v1.0/publish/bus/t", &json!(id)).await?;
        anyhow::ensure!(published.status == 204, "{}", published.text());
        wait::until(&format!("message {id} is delivered"), || async {
            let event: Value = serde_json::from_slice(&app.last()?.body).ok()?;
            (event["data"] == id).then_some(())
        })
        .await
    };
    let failure = async |text: Option<&str>| {
        wait::until(&format!("the failure is {text:?}"), || async {
            let metadata = metadata(&daprd).await.ok()?;
            let failure = metadata["extended"]["outriderSubscriptionError.orders"].as_str();
            let expected = match (failure, text) {
                (Some(failure), Some(text)) => failure.contains(text),
                (failure, text) => failure.is_none() && text.is_none(),
            };
            expected.then_some(())
        })
        .await
    };
    delivered(1).await?;
    let file = daprd.resources().join("1.yaml");
    replace(
        &file,
        &subscription(&RULE.replace("timestamp(", "timestmp(")),
    )?;
    daprd
        .line("subscription orders cannot be used, the one before stays in use, correct it: invalid match expression")
        .await?;
    failure(Some("timestmp")).await?;
    delivered(2).await?;

    replace(&file, &subscription(r#"event.type != "none""#))?;
    failure(None).await?;
    delivered(3).await?;

    std::fs::remove_file(&file)?;
    wait::until("the subscription is gone", || async {
        let metadata = metadata(&daprd).await.ok()?;
        metadata["subscriptions"].is_null().then_some(())
    })
    .await
}

#[tokio::test]
async fn at_the_start_a_component_that_cannot_start_ends_the_process() -> Result<()> {
    let broken = component("store", "state.sqlite", "");
    let daprd = Daprd::builder().resource(&broken).spawn()?;
    assert_eq!(daprd.end().await?.code(), Some(1));

    let ignored = broken.replace("version: v1", "version: v1, ignoreErrors: true");
    let daprd = Daprd::builder().resource(&ignored).start().await?;
    failure(&daprd, "store", Some("missing connection string")).await?;
    Ok(())
}

#[tokio::test]
async fn metadata_lists_each_resource_that_is_not_in_use_and_why() -> Result<()> {
    const RESOURCES: &str = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: policies}\nspec: {policies: {timeouts: {t: soon}}}\n---\napiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: host}\nspec: {baseUrl: 'http://localhost:1', clientTLS: {renegotiation: Sometimes}}\n";
    let parked = component(
        "parked",
        "state.in-memory",
        "{name: k, secretKeyRef: {name: s, key: s}}",
    ) + "auth: {secretStore: vault}\n";
    let broken = component("broken", "state.sqlite", "");
    let daprd = Daprd::builder()
        .resource(&component("fine", "state.in-memory", ""))
        .resource(&subscription("1 +"))
        .resource(&parked)
        .resource(&broken.replace("version: v1", "version: v1, ignoreErrors: true"))
        .resource(RESOURCES)
        .start()
        .await?;
    let listed = async || -> Result<Vec<Value>> {
        let listed = metadata(&daprd).await?["resources"].take();
        Ok(listed.as_array().cloned().unwrap_or_default())
    };
    let listed_now = listed().await?;
    let shown = |listed: &[Value]| -> Vec<String> {
        let words = ["kind", "name", "status"];
        let line = |one: &Value| words.map(|w| one[w].as_str().unwrap_or("?").to_owned());
        listed.iter().map(|one| line(one).join(" ")).collect()
    };
    assert_eq!(
        shown(&listed_now),
        [
            "Component broken failed",
            "Component parked parked",
            "HTTPEndpoint host failed",
            "Resiliency policies failed",
            "Subscription orders failed",
        ]
    );
    let reasons = [
        "missing connection string",
        "it waits for the secret store vault",
        "invalid renegotiation value Sometimes",
        "soon",
        "invalid match expression",
    ];
    for (one, reason) in listed_now.iter().zip(reasons) {
        let found = one["reason"].as_str().unwrap_or_default();
        assert!(found.contains(reason), "{one}");
        assert!(one["since"].as_str().is_some_and(|s| s.ends_with('Z')));
        assert_eq!(one["nextTry"].is_string(), one["name"] == "broken", "{one}");
    }

    // What is corrected or removed is not listed any more.
    let file = |n: u32| daprd.resources().join(format!("{n}.yaml"));
    replace(&file(1), &subscription("true"))?;
    std::fs::remove_file(file(2))?;
    std::fs::remove_file(file(3))?;
    let whole = RESOURCES
        .replace("soon", "1s")
        .replace("Sometimes", "Never");
    replace(&file(4), &whole)?;
    wait::until("everything is in use", || async {
        let metadata = metadata(&daprd).await.ok()?;
        metadata["resources"].is_null().then_some(())
    })
    .await
}

#[tokio::test]
async fn changing_a_component_fails_no_request() -> Result<()> {
    const TASKS: u32 = 8;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data.db");
    let change = |n: u32| {
        sqlite(
            "store",
            &data,
            &format!(", {{name: cleanupInterval, value: '{}h'}}", n + 1),
        )
    };
    let daprd = Arc::new(Daprd::builder().resource(&change(0)).start().await?);
    let (sent, ending) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    // 200 requests a second.
    let calling = |number: u32| {
        let (daprd, sent, ending) = (daprd.clone(), sent.clone(), ending.clone());
        async move {
            let http = daprd.http();
            let mut ticks = tokio::time::interval(Duration::from_millis(5 * u64::from(TASKS)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failed = Vec::new();
            while ending.load(Ordering::SeqCst) == 0 {
                ticks.tick().await;
                let key = format!("k{number}");
                let body = json!([{"key": key, "value": "v"}]).to_string();
                let saved = http
                    .request(Method::POST, "/v1.0/state/store", body)
                    .await?;
                let read = http.get(&format!("/v1.0/state/store/{key}")).await?;
                sent.fetch_add(2, Ordering::SeqCst);
                if (saved.status, read.status) != (204, 200) {
                    failed.push((saved.text(), read.text()));
                }
            }
            anyhow::Ok(failed)
        }
    };
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        tasks.spawn(calling(number));
    }
    let file = daprd.resources().join("0.yaml");
    let updates = || {
        let lines = daprd.lines();
        lines
            .iter()
            .filter(|l| l.contains("Component updated: store"))
            .count()
    };
    for n in 1..=10 {
        let before = sent.load(Ordering::SeqCst);
        std::fs::write(&file, change(n))?;
        wait::until("the change is in use under load", || async {
            let enough = sent.load(Ordering::SeqCst) > before + 50;
            (enough && updates() >= n as usize).then_some(())
        })
        .await?;
    }
    ending.store(1, Ordering::SeqCst);
    while let Some(failed) = tasks.join_next().await {
        let failed = failed??;
        assert!(failed.is_empty(), "{failed:?}");
    }
    Ok(())
}

#[tokio::test]
async fn changing_a_broker_fails_no_publication_and_keeps_its_subscriptions() -> Result<()> {
    let subscriptions = json!([{"pubsubname": "bus", "topic": "t", "route": "/t"}]);
    let router = Router::new()
        .route("/dapr/subscribe", get(async move || Json(subscriptions)))
        .route("/t", post(async || "{}"));
    let app = HttpApp::start(router).await?;
    let change = |n: u32| {
        let id = format!("{{name: consumerID, value: c{n}}}");
        component("bus", "pubsub.in-memory", &id)
    };
    let daprd = Daprd::builder()
        .app(&app)
        .resource(&change(0))
        .start()
        .await?;
    daprd
        .line("app is subscribed to the following topics")
        .await?;
    let http = daprd.http();
    let publish = async |id: u32| {
        let answer = http.post("/v1.0/publish/bus/t", &json!(id)).await?;
        anyhow::ensure!(answer.status == 204, "{}", answer.text());
        Ok(())
    };
    let file = daprd.resources().join("0.yaml");
    for n in 1..=10 {
        std::fs::write(&file, change(n))?;
        let updates = || {
            let lines = daprd.lines();
            let updated = lines
                .iter()
                .filter(|l| l.contains("Component updated: bus"));
            updated.count()
        };
        for _ in 0..500 {
            publish(0).await?;
            if updates() >= n as usize {
                break;
            }
        }
    }
    wait::until("the newest broker delivers", || async {
        publish(1).await.ok()?;
        let last = app.last()?;
        let event: Value = serde_json::from_slice(&last.body).ok()?;
        (event["data"] == 1).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_configuration_among_the_resources_is_named_and_restarts_nothing() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let text = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: myconfig}\nspec: {tracing: {samplingRate: '1'}}\n";
    std::fs::write(daprd.resources().join("config.yaml"), text)?;
    daprd.line("the Configuration myconfig in ").await?;
    let store = component("store", "state.in-memory", "");
    std::fs::write(daprd.resources().join("store.yaml"), store)?;
    in_use(&daprd, "store", "state.in-memory").await?;
    let lines = daprd.lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("myconfig"), 1, "it is said once");
    assert_eq!(count("triggering SIGHUP reload"), 0);
    Ok(())
}
