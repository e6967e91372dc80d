use anyhow::Result;
use axum::Router;
use axum::routing::post;
use http::{Method, StatusCode};
use outrider_harness::{Daprd, HttpApp, Pair, wait};
use serde_json::{Value, json};

use super::{Calls, resource};

async fn listed(daprd: &Daprd, expected: Value) -> Result<()> {
    let what = format!("the resources in use are {expected}");
    wait::until(&what, || async {
        let metadata = daprd.http().get("/v1.0/metadata").await.ok()?;
        (metadata.json().ok()?["resiliencies"] == expected).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_changed_file_is_used_without_a_restart() -> Result<()> {
    let calls = Calls::default();
    let counted = calls.clone();
    let router = Router::new().route(
        "/x",
        post(async move || {
            counted.next();
            StatusCode::INTERNAL_SERVER_ERROR
        }),
    );
    let app = HttpApp::start(router).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let caller = &pair.caller;
    let tries = || async {
        let http = caller.http();
        let path = "/v1.0/invoke/called/method/x";
        let answer = http.request(Method::POST, path, "").await?;
        assert_eq!(answer.status, 500);
        anyhow::Ok(calls.take())
    };
    assert_eq!(tries().await?, 1);
    let file = caller.resources().join("rules.yaml");
    let rules = |count: u32| {
        let policies = format!("{{retries: {{r: {{duration: 1ms, maxRetries: {count}}}}}}}");
        resource(&policies, "{apps: {called: {retry: r}}}")
    };
    std::fs::write(&file, rules(2))?;
    listed(caller, json!([{"name": "rules"}])).await?;
    assert_eq!(tries().await?, 3);
    caller
        .line("Received Resiliency CREATED event: rules")
        .await?;

    std::fs::write(&file, rules(4))?;
    wait::until("the change is in use", || async {
        (tries().await.ok()? == 5).then_some(())
    })
    .await?;
    caller
        .line("Received Resiliency UPDATED event: rules")
        .await?;

    std::fs::write(&file, rules(4).replace("name: rules", "name: renamed"))?;
    listed(caller, json!([{"name": "renamed"}])).await?;

    std::fs::remove_file(&file)?;
    listed(caller, Value::Null).await?;
    assert_eq!(tries().await?, 1);
    caller
        .line("Received Resiliency DELETED event: renamed")
        .await?;
    Ok(())
}
