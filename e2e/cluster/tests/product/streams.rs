//! What is applied with kubectl takes effect in sidecars that run.

use anyhow::{Context as _, Result};
use outrider_cluster::product::App;
use outrider_cluster::wait;
use serde_json::{Value, json};

use crate::{Stage, TIMEOUT};

/// The applications with a sidecar each, ready.
async fn run(stage: &Stage, apps: &[(&str, App<'_>)]) -> Result<()> {
    for (name, more) in apps {
        stage.app(name, more).await?;
    }
    for (name, _) in apps {
        stage.ready(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_http_endpoint_is_added_changed_and_deleted_while_running() -> Result<()> {
    let Some(stage) = Stage::set("endpoint").await? else {
        return Ok(());
    };
    let plain = App::default();
    run(
        &stage,
        &[("front", plain), ("east", plain), ("west", plain)],
    )
    .await?;
    let endpoint = |host: &str| {
        format!(
            "\
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {{name: warehouse}}
scopes: [front]
spec: {{baseUrl: \"http://{host}\"}}
"
        )
    };
    let unknown = |answer: &Value| {
        let said = &answer["said"];
        let message = said["message"].as_str().unwrap_or_default();
        said["errorCode"] == "ERR_DIRECT_INVOKE" && message.contains("warehouse")
    };
    let buy = |id: &str| format!("/buy?from=warehouse&item=book&id={id}");
    stage.until("front", &buy("0"), unknown).await?;

    stage.apply(&endpoint("east")).await?;
    let answer = stage
        .until("front", &buy("1"), |a| a["stored"] == true)
        .await?;
    // A host outside gets no app id of the caller.
    assert_eq!(answer["caller"], "", "{answer}");
    let kept = |answer: &Value| answer["item"] == "book";
    stage.until("east", "/orders/1", kept).await?;

    stage.apply(&endpoint("west")).await?;
    wait("an order in the west", TIMEOUT, async || {
        stage.ask("front", &buy("2")).await;
        let order = stage.ask("west", "/orders/2").await;
        Ok(order.contains("book").then_some(()))
    })
    .await?;
    let elsewhere = stage.ask("west", "/orders/1").await;
    assert!(!elsewhere.contains("book"), "{elsewhere}");

    stage.delete("httpendpoint", "warehouse").await?;
    stage.until("front", &buy("3"), unknown).await?;
    stage.never_restarted("front").await
}

/// The metadata of the sidecar, from the port for probes.
async fn metadata(stage: &Stage, app: &str) -> Result<Value> {
    let namespace = stage.namespace.name();
    let selector = format!("app={app}");
    let pods = stage
        .cluster
        .pods_ready(namespace, &selector, TIMEOUT)
        .await?;
    let pod = pods.first().context("no pod")?;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:3501/proxy/v1.0/metadata");
    let text = stage.cluster.kubectl(["get", "--raw", &path]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Waits until exactly these topics are subscribed to.
async fn topics(stage: &Stage, app: &str, wanted: &[&str]) -> Result<()> {
    wait("the subscriptions", TIMEOUT, async || {
        let metadata = metadata(stage, app).await?;
        let mut topics: Vec<&str> = metadata["subscriptions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|subscription| subscription["topic"].as_str())
            .collect();
        topics.sort_unstable();
        Ok((topics == wanted).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_subscription_is_added_and_deleted_while_running() -> Result<()> {
    let Some(stage) = Stage::set("subscribe").await? else {
        return Ok(());
    };
    let plain = App::default();
    run(&stage, &[("reader", plain), ("writer", plain)]).await?;
    topics(&stage, "reader", &[]).await?;
    stage
        .apply(
            "\
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: news}
scopes: [reader]
spec: {pubsubname: pubsub, topic: news, routes: {default: /news}}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: weather}
scopes: [reader]
spec: {pubsubname: pubsub, topic: weather, route: /news}
",
        )
        .await?;
    topics(&stage, "reader", &["news", "weather"]).await?;
    let (first, second) = (json!({"news": "first"}), json!({"weather": "rain"}));
    stage.publish("writer", "news", &first.to_string()).await?;
    stage
        .publish("writer", "weather", &second.to_string())
        .await?;
    let has = |all: &Value, one: &Value| all.as_array().is_some_and(|all| all.contains(one));
    stage
        .until("reader", "/news", |all| {
            has(all, &first) && has(all, &second)
        })
        .await?;

    stage.delete("subscription", "news").await?;
    topics(&stage, "reader", &["weather"]).await?;
    let (late, sign) = (json!({"news": "late"}), json!({"weather": "sun"}));
    stage.publish("writer", "news", &late.to_string()).await?;
    stage
        .publish("writer", "weather", &sign.to_string())
        .await?;
    let all = stage
        .until("reader", "/news", |all| has(all, &sign))
        .await?;
    assert!(!has(&all, &late), "{all}");
    stage.never_restarted("reader").await
}

#[tokio::test]
async fn a_changed_configuration_restarts_the_runtime_in_its_process() -> Result<()> {
    let Some(stage) = Stage::set("configure").await? else {
        return Ok(());
    };
    let configuration = |action: &str| {
        format!(
            "\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: gate}}
spec: {{accessControl: {{defaultAction: {action}, trustDomain: public, policies: []}}}}
"
        )
    };
    stage.apply(&configuration("allow")).await?;
    let gated = App {
        annotations: &[("dapr.io/config", "gate")],
        ..App::default()
    };
    run(&stage, &[("orders", gated), ("front", App::default())]).await?;
    let buy = "/buy?id=1&item=book";
    let denied = |answer: &Value| {
        answer
            .to_string()
            .contains("access control policy has denied access")
    };
    stage.until("front", buy, |a| a["stored"] == true).await?;
    stage.apply(&configuration("deny")).await?;
    stage.until("front", buy, denied).await?;
    stage.apply(&configuration("allow")).await?;
    stage.until("front", buy, |a| a["stored"] == true).await?;
    // The runtime restarted inside its process.
    let logs = stage.logs("orders").await?;
    let line = "Received Configuration UPDATED event: gate - triggering SIGHUP reload";
    assert!(logs.matches(line).count() == 2, "{logs}");
    stage.never_restarted("orders").await
}
