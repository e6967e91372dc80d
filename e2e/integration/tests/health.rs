use anyhow::Result;
use http::StatusCode;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, HttpApp, port, wait};

#[tokio::test]
async fn the_sidecar_is_not_ready_until_the_application_listens() -> Result<()> {
    let app_port = port::free();
    let daprd = Daprd::builder()
        .flag(&format!("--app-port={app_port}"))
        .spawn()?;
    let http = daprd.http();
    let outbound = || async {
        http.answers("/v1.0/healthz/outbound", StatusCode::NO_CONTENT)
            .await
            .then_some(())
    };
    wait::until("outbound is ready", outbound).await?;
    let waiting = http.get("/v1.0/healthz").await?;
    let expected = (
        "ERR_HEALTH_NOT_READY".to_owned(),
        "dapr is not ready: [runtime]".to_owned(),
    );
    assert_eq!((waiting.status, waiting.error()?), (500, expected));

    let _app = HttpApp::at(app_port, axum::Router::new()).await?;
    daprd.ready().await?;
    daprd
        .line(&format!("application discovered on port {app_port}"))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_health_check_may_name_the_app_id_it_expects() -> Result<()> {
    let daprd = Daprd::builder().app_id("cart").start().await?;
    for client in [daprd.http(), daprd.public()] {
        assert_eq!(client.get("/v1.0/healthz?appid=cart").await?.status, 204);
        let other = client.get("/v1.0/healthz?appid=basket").await?;
        let expected = (
            "ERR_HEALTH_APPID_NOT_MATCH".to_owned(),
            "dapr app-id does not match".to_owned(),
        );
        assert_eq!((other.status, other.error()?), (500, expected));
        assert_eq!(client.get("/v1.0/healthz/outbound").await?.status, 204);
    }
    Ok(())
}

#[tokio::test]
async fn metrics_are_served() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let page = Client::new(daprd.metrics_port()).get("/metrics").await?;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("# TYPE "), "{}", page.text());
    Ok(())
}

#[tokio::test]
async fn an_unhealthy_application_is_not_called() -> Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let healthy = Arc::new(AtomicBool::new(true));
    let probe = Arc::clone(&healthy);
    let router = axum::Router::new()
        .route(
            "/alive",
            axum::routing::get(async move || {
                let healthy = probe.load(Ordering::Relaxed);
                if healthy {
                    StatusCode::OK
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            }),
        )
        .route("/hello", axum::routing::get(async || "hello"));
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .flag("--enable-app-health-check")
        .flag("--app-health-check-path=/alive")
        .flag("--app-health-probe-interval=1")
        .flag("--app-health-threshold=1")
        .start()
        .await?;
    let call = || async { daprd.http().get("/v1.0/invoke/app/method/hello").await.ok() };
    wait::until("the application is called", || async {
        call().await.filter(|a| a.status == 200)
    })
    .await?;

    healthy.store(false, Ordering::Relaxed);
    daprd.line("App entered un-healthy status").await?;
    let refused = wait::until("the application is spared", || async {
        call().await.filter(|a| a.status == 500)
    })
    .await?;
    let (code, message) = refused.error()?;
    assert_eq!(code, "ERR_DIRECT_INVOKE");
    assert!(
        message.contains("app is not in a healthy state"),
        "{message}"
    );
    assert_eq!(daprd.http().get("/v1.0/healthz").await?.status, 204);

    healthy.store(true, Ordering::Relaxed);
    wait::until("the application is called again", || async {
        call().await.filter(|a| a.status == 200)
    })
    .await?;
    Ok(())
}
