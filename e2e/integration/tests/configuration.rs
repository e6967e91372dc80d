//! Configuration stores, on a real Redis.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use outrider_harness::{Daprd, HttpApp, Redis, Signal, wait};
use outrider_proto::runtime::v1::{
    GetConfigurationRequest, SubscribeConfigurationRequest, SubscribeConfigurationResponse,
    UnsubscribeConfigurationRequest,
};
use serde_json::{Value, json};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

const STORE: &str = "configuration.redis";

async fn app() -> Result<HttpApp> {
    HttpApp::start(Router::new().route("/configuration/{*key}", post(StatusCode::OK))).await
}

/// Waits for a change that the application was sent.
async fn change(app: &HttpApp, path: &str, wanted: &Value) -> Result<()> {
    wait::until(&format!("{path} is sent {wanted}"), || async {
        let mut seen = app.seen().into_iter();
        seen.find(|seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            seen.target == path && body["items"] == *wanted
        })
        .map(|_| ())
    })
    .await
}

async fn subscribe(daprd: &Daprd, query: &str) -> Result<String> {
    let path = format!("/v1.0/configuration/config/subscribe{query}");
    let answer = daprd.http().get(&path).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()?["id"].as_str().map(str::to_owned);
    assert!(answer.text().ends_with("\"}\n"));
    id.context("an id")
}

#[tokio::test]
async fn items_are_read_over_both_protocols() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let daprd = Daprd::builder()
        .resource(&redis.component("config", STORE, ""))
        .start()
        .await?;
    redis
        .command(&["MSET", "a", "1", "b", "2||7", "empty", "", "odd", "<x>&"])
        .await?;
    redis.command(&["HSET", "hash", "f", "v"]).await?;
    let http = daprd.http();
    for (path, body) in [
        (
            "/v1.0/configuration/config",
            r#"{"a":{"value":"1"},"b":{"value":"2","version":"7"},"odd":{"value":"\u003cx\u003e\u0026"}}"#,
        ),
        (
            "/v1.0-alpha1/configuration/config?key=b&key=nope&key=hash&metadata.x=y",
            r#"{"b":{"value":"2","version":"7"}}"#,
        ),
    ] {
        let answer = http.get(path).await?;
        assert_eq!(answer.text(), format!("{body}\n"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    for path in ["?key=nope", "?key="] {
        let answer = http
            .get(&format!("/v1.0/configuration/config{path}"))
            .await?;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    }

    let mut grpc = daprd.grpc().await?;
    let request = |keys: &[&str]| GetConfigurationRequest {
        store_name: "config".to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..Default::default()
    };
    let items = grpc
        .get_configuration(request(&["b"]))
        .await?
        .into_inner()
        .items;
    assert_eq!(
        (items.len(), &*items["b"].value, &*items["b"].version),
        (1, "2", "7")
    );
    let items = grpc
        .get_configuration_alpha1(request(&[]))
        .await?
        .into_inner()
        .items;
    assert_eq!(items.len(), 3);
    let items = grpc
        .get_configuration(request(&["nope"]))
        .await?
        .into_inner()
        .items;
    assert!(items.is_empty());
    Ok(())
}

#[tokio::test]
async fn errors_are_those_of_dapr() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let without = Daprd::builder().start().await?;
    let daprd = Daprd::builder()
        .resource(&redis.component("config", STORE, ""))
        .start()
        .await?;
    for (daprd, path, status, code, message) in [
        (
            &without,
            "nope",
            500,
            "ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
            "configuration stores not configured",
        ),
        (
            &daprd,
            "nope?key=a",
            400,
            "ERR_CONFIGURATION_STORE_NOT_FOUND",
            "configuration store nope not found",
        ),
        (
            &daprd,
            "nope/subscribe",
            400,
            "ERR_CONFIGURATION_STORE_NOT_FOUND",
            "configuration store nope not found",
        ),
        (
            &daprd,
            "nope/x/unsubscribe",
            400,
            "ERR_CONFIGURATION_STORE_NOT_FOUND",
            "configuration store nope not found",
        ),
        (
            &daprd,
            "config/subscribe",
            500,
            "ERR_APP_CHANNEL_NIL",
            "app channel is not initialized. cannot subscribe to configuration updates",
        ),
    ] {
        let answer = daprd
            .http()
            .get(&format!("/v1.0/configuration/{path}"))
            .await?;
        let error = (code.to_owned(), message.to_owned());
        assert_eq!((answer.status, answer.error()?), (status, error), "{path}");
        assert_eq!(answer.text().ends_with('\n'), code == "ERR_APP_CHANNEL_NIL");
    }
    let answer = daprd
        .http()
        .get("/v1.0/configuration/config/x/unsubscribe")
        .await?;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (
            500,
            "{\"message\":\"failed to unsubscribe to configuration request x: subscription with id x does not exist\"}\n"
        )
    );

    for (daprd, code, reason) in [
        (
            &without,
            Code::FailedPrecondition,
            "ERR_CONFIGURATION_STORE_NOT_CONFIGURED",
        ),
        (
            &daprd,
            Code::InvalidArgument,
            "ERR_CONFIGURATION_STORE_NOT_FOUND",
        ),
    ] {
        let mut grpc = daprd.grpc().await?;
        let check = |error: Status| {
            assert_eq!(error.code(), code);
            let info = error.get_details_error_info().expect("has an ErrorInfo");
            assert_eq!(info.reason, reason);
        };
        check(
            grpc.get_configuration(GetConfigurationRequest::default())
                .await
                .expect_err("fails"),
        );
        let subscribing = grpc.subscribe_configuration(SubscribeConfigurationRequest::default());
        check(subscribing.await.expect_err("fails"));
    }
    let unsubscribe = UnsubscribeConfigurationRequest {
        store_name: "nope".to_owned(),
        id: "x".to_owned(),
    };
    let answer = daprd
        .grpc()
        .await?
        .unsubscribe_configuration(unsubscribe)
        .await?
        .into_inner();
    assert_eq!(
        (answer.ok, answer.message.as_str()),
        (
            false,
            "failed to unsubscribe to configuration request x: subscription does not exist"
        )
    );
    Ok(())
}

#[tokio::test]
async fn an_application_gets_the_changes_that_it_subscribes_to() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let app = app().await?;
    let daprd = Daprd::builder()
        .app(&app)
        .resource(&redis.component("config", STORE, ""))
        .start()
        .await?;
    let id = subscribe(&daprd, "?key=a&key=p/q%25").await?;
    redis.command(&["SET", "a", "new||2"]).await?;
    let item = json!({"a": {"value": "new", "version": "2"}});
    change(&app, "/configuration/config/a", &item).await?;
    let seen = app.last().context("a request")?;
    assert_eq!(
        String::from_utf8_lossy(&seen.body),
        format!(
            "{{\"id\":\"{id}\",\"items\":{{\"a\":{{\"value\":\"new\",\"version\":\"2\"}}}}}}\n"
        )
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    redis.command(&["SET", "p/q%", "1"]).await?;
    let path = "/configuration/config/p/q%25";
    change(&app, path, &json!({"p/q%": {"value": "1"}})).await?;
    redis.command(&["DEL", "a"]).await?;
    change(&app, "/configuration/config/a", &json!({"a": {}})).await?;

    let end = format!("/v1.0-alpha1/configuration/config/{id}/unsubscribe");
    let answer = daprd.http().get(&end).await?;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "{\"ok\":true}\n")
    );
    assert_eq!(daprd.http().get(&end).await?.status, 500);
    // What comes for another subscription shows that nothing came for this.
    subscribe(&daprd, "?key=last").await?;
    redis.command(&["SET", "a", "unseen"]).await?;
    redis.command(&["SET", "last", "1"]).await?;
    change(
        &app,
        "/configuration/config/last",
        &json!({"last": {"value": "1"}}),
    )
    .await?;
    let unseen = |seen: &outrider_harness::Seen| seen.body.windows(6).any(|w| w == b"unseen");
    assert!(!app.seen().iter().any(unseen));
    Ok(())
}

async fn open(
    daprd: &Daprd,
    keys: &[&str],
) -> Result<(String, Streaming<SubscribeConfigurationResponse>)> {
    let request = SubscribeConfigurationRequest {
        store_name: "config".to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..Default::default()
    };
    let mut grpc = daprd.grpc().await?;
    let mut changes = grpc.subscribe_configuration(request).await?.into_inner();
    let first = changes.message().await?.context("a first message")?;
    assert!(first.items.is_empty() && !first.id.is_empty());
    Ok((first.id, changes))
}

async fn next(
    changes: &mut Streaming<SubscribeConfigurationResponse>,
) -> Result<Option<(String, String)>, Status> {
    let next = tokio::time::timeout(Duration::from_secs(10), changes.message()).await;
    let next = next.map_err(|_| Status::deadline_exceeded("nothing comes"))??;
    let items = next.map(|change| change.items).unwrap_or_default();
    Ok(items
        .into_iter()
        .next()
        .map(|(key, item)| (key, item.value)))
}

fn item(key: &str, value: &str) -> Option<(String, String)> {
    Some((key.to_owned(), value.to_owned()))
}

#[tokio::test]
async fn a_client_gets_changes_over_a_stream_until_it_is_ended_by_its_id() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let daprd = Daprd::builder()
        .resource(&redis.component("config", STORE, ""))
        .start()
        .await?;
    let (id, mut one) = open(&daprd, &["b", "a"]).await?;
    let (_, mut all) = open(&daprd, &[]).await?;
    redis.command(&["SET", "a", "1"]).await?;
    assert_eq!(next(&mut one).await?, item("a", "1"));
    assert_eq!(next(&mut all).await?, item("a", "1"));
    redis.command(&["DEL", "a"]).await?;
    assert_eq!(next(&mut one).await?, item("a", ""));
    assert_eq!(next(&mut all).await?, item("a", ""));

    let mut grpc = daprd.grpc().await?;
    let unsubscribe = UnsubscribeConfigurationRequest {
        store_name: String::new(),
        id,
    };
    let answer = grpc
        .unsubscribe_configuration_alpha1(unsubscribe.clone())
        .await?;
    assert!(answer.into_inner().ok);
    assert_eq!(next(&mut one).await?, None, "it ends with OK");
    let again = grpc
        .unsubscribe_configuration(unsubscribe)
        .await?
        .into_inner();
    assert!(!again.ok);
    redis.command(&["SET", "z", "1"]).await?;
    assert_eq!(next(&mut all).await?, item("z", "1"), "others go on");
    drop(all);
    let series = r#"component_configuration_count{app_id="app",component="config",namespace="",operation="unsubscribe",success="true"} 2"#;
    wait::until("a client that leaves ends its subscription", || async {
        let metrics = outrider_harness::http::Client::new(daprd.metrics_port());
        let text = metrics.get("/").await.ok()?.text();
        text.contains(series).then_some(())
    })
    .await
}

#[tokio::test]
async fn subscriptions_outlive_a_change_of_their_store_and_end_with_it() -> Result<()> {
    let (Some(before), Some(after)) = (Redis::start().await?, Redis::start().await?) else {
        return Ok(());
    };
    let app = app().await?;
    let daprd = Daprd::builder()
        .app(&app)
        .resource(&before.component("config", STORE, ""))
        .start()
        .await?;
    subscribe(&daprd, "?key=a").await?;
    let (_, mut changes) = open(&daprd, &["a"]).await?;
    let file = daprd.resources().join("0.yaml");
    std::fs::write(&file, after.component("config", STORE, ""))?;
    let deadline = tokio::time::Instant::now() + wait::LONG;
    let changed = loop {
        after.command(&["SET", "a", "2"]).await?;
        let quick = tokio::time::timeout(Duration::from_millis(50), changes.message()).await;
        match quick {
            Ok(changed) => break changed?.context("goes on")?,
            Err(_) => assert!(
                tokio::time::Instant::now() < deadline,
                "the other server is used"
            ),
        }
    };
    assert_eq!(changed.items["a"].value, "2");
    change(
        &app,
        "/configuration/config/a",
        &json!({"a": {"value": "2"}}),
    )
    .await?;

    std::fs::remove_file(&file)?;
    let end = loop {
        match next(&mut changes).await {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("it ends without a status"),
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.message().contains("not in use any more"), "{end}");
    daprd
        .line("ended: the store is not in use any more")
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_sidecar_ends_subscriptions() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let app = app().await?;
    let daprd = Daprd::builder()
        .app(&app)
        .resource(&redis.component("config", STORE, ""))
        .start()
        .await?;
    subscribe(&daprd, "").await?;
    let (_, mut changes) = open(&daprd, &[]).await?;
    daprd.signal(Signal::TERM)?;
    let end = next(&mut changes).await.expect_err("has a status");
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(end.message(), "the sidecar is shutting down");
    assert!(daprd.end().await?.success());
    Ok(())
}

#[tokio::test]
async fn many_keys_and_subscriptions_are_bounded() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let app = app().await?;
    let daprd = Daprd::builder()
        .app(&app)
        .resource(&redis.component("config", STORE, ""))
        .start()
        .await?;
    redis.command(&["SET", "k99999", "found"]).await?;
    let keys: Vec<String> = (0..100_000).map(|number| format!("k{number}")).collect();
    let mut grpc = daprd.grpc().await?;
    let request = GetConfigurationRequest {
        store_name: "config".to_owned(),
        keys: keys.clone(),
        ..Default::default()
    };
    let items = grpc.get_configuration(request).await?.into_inner().items;
    assert_eq!((items.len(), &*items["k99999"].value), (1, "found"));

    let mut refused = None;
    let mut open = Vec::new();
    for _ in 0..10 {
        let request = SubscribeConfigurationRequest {
            store_name: "config".to_owned(),
            keys: keys.clone(),
            ..Default::default()
        };
        match grpc.subscribe_configuration(request).await {
            Ok(changes) => open.push(changes),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.context("the keys have a limit")?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("too many subscriptions"),
        "{refused}"
    );
    assert!(refused.message().len() < 8192);
    drop(open);
    // Once they are gone there is room again.
    wait::until("there is room again", || async {
        subscribe(&daprd, "?key=a").await.ok()
    })
    .await?;
    Ok(())
}
