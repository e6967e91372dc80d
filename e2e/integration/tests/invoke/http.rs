use anyhow::{Context, Result};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{any, get};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use outrider_harness::{Daprd, HttpApp, Pair, Signal, wait};
use tokio::time::Duration;

fn routes() -> Router {
    Router::new()
        .route("/echo", any(async |body: String| body))
        .route(
            "/teapot",
            get(async || {
                (
                    StatusCode::IM_A_TEAPOT,
                    [("x-kind", "tea")],
                    "short and stout",
                )
            }),
        )
        .route(
            "/moved",
            get(async || (StatusCode::FOUND, [("location", "/elsewhere")])),
        )
        .fallback(async |headers: HeaderMap| format!("{}", headers.len()))
}

#[tokio::test]
async fn a_call_reaches_the_other_application_and_its_answer_comes_back() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let http = pair.caller.http();
    let request = Request::post("/v1.0/invoke/called/method/echo?a=1&b=%20")
        .header("x-custom", "kept")
        .header("content-type", "text/plain")
        .body(Full::from("hello"))?;
    let answer = http.send(request).await?;
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));

    let seen = app.last().context("was not called")?;
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/echo?a=1&b=%20"));
    assert_eq!(seen.header("x-custom"), Some("kept"));
    assert_eq!(seen.header("content-type"), Some("text/plain"));
    assert_eq!(seen.header("dapr-caller-app-id"), Some("caller"));
    assert_eq!(seen.header("dapr-callee-app-id"), Some("called"));
    Ok(())
}

#[tokio::test]
async fn every_verb_arrives() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    for verb in [
        Method::GET,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::HEAD,
    ] {
        let answer = pair
            .caller
            .http()
            .request(verb.clone(), "/v1.0/invoke/called/method/echo", "")
            .await?;
        assert_eq!(answer.status, 200, "{verb}");
        assert_eq!(app.last().context("was not called")?.method, verb.as_str());
    }
    Ok(())
}

#[tokio::test]
async fn status_and_headers_of_answers_are_passed_on() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let http = pair.caller.http();
    let teapot = http.get("/v1.0/invoke/called/method/teapot").await?;
    assert_eq!(
        (teapot.status, teapot.header("x-kind"), &*teapot.text()),
        (418, Some("tea"), "short and stout")
    );
    let moved = http.get("/v1.0/invoke/called/method/moved").await?;
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("/elsewhere"))
    );
    assert_eq!(app.seen().len(), 2);
    Ok(())
}

#[tokio::test]
async fn repeated_slashes_count_once() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    for path in [
        "/v1.0////invoke/called/method/echo",
        "//v1.0//invoke//called/method//echo",
    ] {
        let http = pair.caller.http();
        let answer = http.request(Method::POST, path, path).await?;
        assert_eq!((answer.status, &*answer.text()), (200, path));
    }
    let http = pair.caller.http().with("dapr-app-id", "called");
    let answer = http.request(Method::POST, "///echo", "by header").await?;
    assert_eq!((answer.status, &*answer.text()), (200, "by header"));
    Ok(())
}

#[tokio::test]
async fn the_target_may_be_in_a_header() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let http = pair.caller.http().with("dapr-app-id", "called");
    let answer = http.request(Method::POST, "/echo", "by header").await?;
    assert_eq!((answer.status, &*answer.text()), (200, "by header"));
    assert_eq!(
        app.last().context("was not called")?.header("dapr-app-id"),
        None
    );
    Ok(())
}

#[tokio::test]
async fn an_application_may_call_itself() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let daprd = Daprd::builder().app(&app).start().await?;
    let answer = daprd
        .http()
        .request(Method::POST, "/v1.0/invoke/app/method/echo", "me")
        .await?;
    assert_eq!((answer.status, &*answer.text()), (200, "me"));
    Ok(())
}

#[tokio::test]
async fn a_call_that_finds_no_application_is_an_error() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let http = daprd.http();
    let unknown = http.get("/v1.0/invoke/nobody/method/x").await?;
    let expected = "failed to invoke, id: nobody, err: no host found with the given ID".to_owned();
    assert_eq!(
        (unknown.status, unknown.error()?),
        (500, ("ERR_DIRECT_INVOKE".to_owned(), expected))
    );
    let without_app = http.get("/v1.0/invoke/app/method/x").await?;
    let expected =
        "failed to invoke, id: app, err: cannot invoke local endpoint: app channel not initialized"
            .to_owned();
    assert_eq!(
        (without_app.status, without_app.error()?),
        (500, ("ERR_DIRECT_INVOKE".to_owned(), expected))
    );
    let nowhere = http.get("/v1.0/invoke/app").await?;
    assert_eq!(
        (nowhere.status, &*nowhere.error()?.0),
        (404, "ERR_DIRECT_INVOKE")
    );
    Ok(())
}

#[tokio::test]
async fn sidecars_find_each_other_by_multicast() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let unique = format!("called-{}", std::process::id());
    let caller = Daprd::builder()
        .app_id(&format!("caller-{}", std::process::id()))
        .mdns()
        .start()
        .await?;
    let called = Daprd::builder()
        .app_id(&unique)
        .mdns()
        .app(&app)
        .start()
        .await?;
    called
        .line(&format!(
            "local service entry announced: {unique} -> 127.0.0.1:"
        ))
        .await?;
    let path = format!("/v1.0/invoke/{unique}/method/echo");
    let call = || async {
        caller
            .http()
            .get(&path)
            .await
            .ok()
            .filter(|answer| answer.status == 200)
    };
    wait::until("the other is found", call).await?;
    Ok(())
}

#[tokio::test]
async fn an_instance_that_is_gone_is_avoided() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let id = |name: &str| format!("{name}-gone-{}", std::process::id());
    let (caller, called) = (id("caller"), id("called"));
    let caller = Daprd::builder().app_id(&caller).mdns().start().await?;
    let instance = || Daprd::builder().app_id(&called).mdns().app(&app).start();
    let (first, second) = (instance().await?, instance().await?);
    let path = format!("/v1.0/invoke/{called}/method/echo");
    let http = caller.http();
    let call = || http.request(Method::POST, &path, "hello");
    wait::until("the instances are found", || async {
        call().await.ok().filter(|answer| answer.status == 200)
    })
    .await?;

    // It withdraws its entry: no call is slow.
    assert_eq!(first.stop().await?, Some(0));
    for _ in 0..6 {
        let started = tokio::time::Instant::now();
        assert_eq!(call().await?.status, 200);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(900), "took {took:?}");
    }
    // Killed, it cannot: one call finds out and goes to another instance.
    let third = instance().await?;
    second.signal(Signal::KILL)?;
    second.end().await?;
    let mut slow = 0;
    for _ in 0..6 {
        let started = tokio::time::Instant::now();
        assert_eq!(call().await?.status, 200);
        slow += usize::from(started.elapsed() > Duration::from_millis(900));
    }
    assert!(slow <= 1, "{slow} calls were slow");
    drop(third);
    Ok(())
}

#[tokio::test]
async fn an_application_may_use_http_2_without_tls() -> Result<()> {
    let app = HttpApp::start(routes()).await?;
    let pair = Pair::start(|called| called.app(&app).flag("--app-protocol=h2c")).await?;
    let client = pair.caller.http();
    let answer = client
        .request(Method::POST, "/v1.0/invoke/called/method/echo?a=1", "hello")
        .await?;
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    let seen = app.last().context("was not called")?;
    assert!(seen.target.ends_with("/echo?a=1"), "{}", seen.target);
    assert_eq!(seen.version, http::Version::HTTP_2);
    Ok(())
}
