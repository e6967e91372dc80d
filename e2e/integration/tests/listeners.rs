use std::os::unix::fs::FileTypeExt;

use anyhow::Result;
use http::Request;
use outrider_harness::http::{Client, over_unix};
use outrider_harness::{Daprd, HttpApp};

#[tokio::test]
async fn sockets_replace_ports() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daprd = Daprd::builder()
        .app_id("cart")
        .flag(&format!("--unix-domain-socket={}", folder.path().display()))
        .start()
        .await?;
    let socket = folder.path().join("dapr-cart-http.socket");
    let request = Request::get("/v1.0/metadata").header("host", "localhost");
    let answer = over_unix(&socket, request.body(Default::default())?).await?;
    assert_eq!(
        (answer.status, &answer.json()?["id"]),
        (200, &"cart".into())
    );
    let grpc = folder.path().join("dapr-cart-grpc.socket");
    assert!(std::fs::metadata(&grpc)?.file_type().is_socket());
    assert!(daprd.http().get("/v1.0/metadata").await.is_err());

    assert_eq!(daprd.stop().await?, Some(0));
    assert!(!socket.exists() && !grpc.exists(), "a socket stays behind");
    Ok(())
}

#[tokio::test]
async fn the_http_api_takes_http_2_without_tls() -> Result<()> {
    let daprd = Daprd::builder().app_id("cart").start().await?;
    let answer = Client::h2c(daprd.http_port()).get("/v1.0/metadata").await?;
    assert_eq!(
        (answer.status, &answer.json()?["id"]),
        (200, &"cart".into())
    );
    Ok(())
}

#[tokio::test]
async fn the_public_port_has_health_and_metadata_only() -> Result<()> {
    let app = HttpApp::start(axum::Router::new().fallback(async || "ok")).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("store", "state.in-memory")
        .start()
        .await?;
    let public = daprd.public();
    assert_eq!(public.get("/v1.0/metadata").await?.status, 200);
    for path in ["/v1.0/state/store/a", "/v1.0/invoke/app/method/x"] {
        assert_eq!(public.get(path).await?.status, 404, "{path}");
    }
    assert!(app.seen().is_empty());
    Ok(())
}
