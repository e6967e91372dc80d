//! Middleware that needs no server.

use anyhow::Result;
use axum::Router;
use axum::routing::any;
use outrider_harness::{Daprd, HttpApp, wait};

use super::{middleware, pipeline};

#[tokio::test]
async fn ratelimit_counts_each_path_for_itself() -> Result<()> {
    let daprd = Daprd::builder()
        .config(&pipeline("httpPipeline", &[("limit", "ratelimit")]))
        .resource(&middleware(
            "limit",
            "ratelimit",
            "{name: maxRequestsPerSecond, value: '0.01'}",
        ))
        .start()
        .await?;
    let http = daprd.http();
    let first = http.get("/v1.0/metadata").await?;
    assert_eq!(
        (first.status, first.header("ratelimit-remaining")),
        (200, Some("0"))
    );
    let second = http.get("/v1.0/metadata").await?;
    assert_eq!(
        (second.status, &*second.text()),
        (429, "You have reached maximum request limit.")
    );
    assert_eq!(second.header("x-rate-limit-limit"), Some("0.01"));
    let from = second
        .header("x-rate-limit-request-remote-addr")
        .unwrap_or_default();
    assert!(from.starts_with("127.0.0.1:"), "{from}");
    assert_ne!(http.get("/v1.0/state/none/k").await?.status, 429);
    let other = http.with("x-forwarded-for", "203.0.113.9");
    assert_eq!(other.get("/v1.0/metadata").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn routes_of_an_alias_change_while_the_sidecar_runs() -> Result<()> {
    let app = HttpApp::start(Router::new().fallback(any(async || "app"))).await?;
    let routes = |to: &str| {
        let value = format!("{{\"/users/{{id}}\": \"{to}\"}}");
        middleware(
            "alias",
            "routeralias",
            &format!("{{name: routes, value: '{value}'}}"),
        )
    };
    let daprd = Daprd::builder()
        .app(&app)
        .config(&pipeline("httpPipeline", &[("alias", "routeralias")]))
        .resource(&routes("/v1.0/invoke/app/method/first"))
        .start()
        .await?;
    let http = daprd.http();
    assert_eq!(http.get("/users/7?z=1").await?.text(), "app");
    let target = |target: &str| app.last().is_some_and(|seen| seen.target == target);
    assert!(target("/first?id=7&z=1"), "{:?}", app.last());
    std::fs::write(
        daprd.resources().join("0.yaml"),
        routes("/v1.0/invoke/app/method/second"),
    )?;
    wait::until("the other route is in use", || async {
        http.get("/users/7").await.ok()?;
        target("/second?id=7").then_some(())
    })
    .await
}
