use anyhow::{Context, Result};
use outrider_harness::{GrpcApp, HttpApp, Pair, feed};
use outrider_proto::Any;
use outrider_proto::common::v1::http_extension::Verb;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse};
use outrider_proto::placement::v1::Host;
use outrider_proto::placement::v1::placement_client::PlacementClient;
use outrider_proto::runtime::v1::InvokeServiceRequest;
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use tonic::{Code, Request, Status};

fn echo(request: InvokeRequest) -> Result<InvokeResponse, Status> {
    if request.method == "fail" {
        return Err(Status::data_loss("all gone"));
    }
    Ok(InvokeResponse {
        data: request.data,
        content_type: "text/plain".to_owned(),
    })
}

/// What a typed message comes back as.
fn typed(request: InvokeRequest) -> Result<InvokeResponse, Status> {
    let given = request.data.unwrap_or_default();
    Ok(InvokeResponse {
        data: Some(Any {
            type_url: format!("{}.Answer", given.type_url),
            value: given.value,
        }),
        content_type: "ignored".to_owned(),
    })
}

fn invocation(method: &str, data: &'static str) -> InvokeRequest {
    InvokeRequest {
        method: method.to_owned(),
        data: Some(Any {
            type_url: String::new(),
            value: data.into(),
        }),
        content_type: "text/plain".to_owned(),
        http_extension: Some(HttpExtension {
            verb: Verb::Post.into(),
            querystring: String::new(),
        }),
    }
}

fn call(id: &str, message: InvokeRequest) -> InvokeServiceRequest {
    InvokeServiceRequest {
        id: id.to_owned(),
        message: Some(message),
    }
}

fn to<T>(target: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(
        "dapr-app-id",
        tonic::metadata::MetadataValue::from_static(target),
    );
    request
}

#[tokio::test]
async fn grpc_calls_a_grpc_application() -> Result<()> {
    let app = GrpcApp::start(echo).await?;
    let pair = Pair::start(|called| called.grpc_app(&app)).await?;
    let mut grpc = pair.caller.grpc().await?;
    let mut request = Request::new(call("called", invocation("echo", "hello")));
    request.metadata_mut().insert("x-custom", "kept".parse()?);
    let answer = grpc.invoke_service(request).await?.into_inner();
    assert_eq!(&answer.data.context("no data")?.value[..], b"hello");
    assert_eq!(answer.content_type, "text/plain");
    let (metadata, seen) = app.last().context("was not called")?;
    assert_eq!(seen.method, "echo");
    assert_eq!(
        metadata.get("x-custom").map(|v| v.as_bytes()),
        Some(&b"kept"[..])
    );

    let error = grpc
        .invoke_service(call("called", invocation("fail", "")))
        .await
        .expect_err("fails");
    assert_eq!(
        (error.code(), error.message()),
        (Code::DataLoss, "all gone")
    );
    let unknown = grpc
        .invoke_service(call("nobody", invocation("echo", "")))
        .await
        .expect_err("fails");
    assert_eq!(
        (unknown.code(), unknown.message()),
        (
            Code::Internal,
            "failed to invoke, id: nobody, err: no host found with the given ID"
        )
    );
    Ok(())
}

#[tokio::test]
async fn the_type_of_the_data_is_kept() -> Result<()> {
    let app = GrpcApp::start(typed).await?;
    let pair = Pair::start(|called| called.grpc_app(&app)).await?;
    let mut message = invocation("typed", "hello");
    if let Some(data) = &mut message.data {
        data.type_url = "type.googleapis.com/shop.Order".to_owned();
    }
    let sidecars = [pair.caller.grpc().await?, pair.called.grpc().await?];
    for mut grpc in sidecars {
        let answer = grpc
            .invoke_service(call("called", message.clone()))
            .await?
            .into_inner();
        let data = answer.data.context("no data")?;
        assert_eq!(data.type_url, "type.googleapis.com/shop.Order.Answer");
        assert_eq!(&data.value[..], b"hello");
        assert_eq!(answer.content_type, "application/x-protobuf");
    }
    Ok(())
}

#[tokio::test]
async fn grpc_calls_an_http_application() -> Result<()> {
    let router = axum::Router::new()
        .route("/echo", axum::routing::post(async |body: String| body))
        .fallback(async || (http::StatusCode::NOT_FOUND, "what?"));
    let app = HttpApp::start(router).await?;
    let pair = Pair::start(|called| called.app(&app)).await?;
    let mut grpc = pair.caller.grpc().await?;
    let answer = grpc
        .invoke_service(call("called", invocation("echo", "hello")))
        .await?;
    let status = answer
        .metadata()
        .get("dapr-http-status")
        .map(|v| v.as_bytes());
    assert_eq!(status, Some(&b"200"[..]));
    assert_eq!(
        &answer.into_inner().data.context("no data")?.value[..],
        b"hello"
    );

    let error = grpc
        .invoke_service(call("called", invocation("other", "")))
        .await
        .expect_err("is not there");
    assert_eq!(
        (error.code(), error.message()),
        (Code::NotFound, "Not Found")
    );
    Ok(())
}

#[tokio::test]
async fn http_calls_a_grpc_application() -> Result<()> {
    let app = GrpcApp::start(echo).await?;
    let pair = Pair::start(|called| called.grpc_app(&app)).await?;
    let http = pair.caller.http();
    let answer = http
        .request(
            http::Method::POST,
            "/v1.0/invoke/called/method/echo",
            "hello",
        )
        .await?;
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    let error = http
        .request(http::Method::POST, "/v1.0/invoke/called/method/fail", "")
        .await?;
    assert_eq!(
        (error.status, &error.json()?["message"]),
        (500, &"all gone".into())
    );
    Ok(())
}

#[tokio::test]
async fn the_proxy_passes_any_method() -> Result<()> {
    let app = GrpcApp::start(echo).await?;
    let pair = Pair::start(|called| called.grpc_app(&app)).await?;
    // The application's own service, not the sidecar's.
    let mut client = AppCallbackClient::new(pair.caller.channel().await?);
    let answer = client
        .on_invoke(to("called", invocation("echo", "raw")))
        .await?
        .into_inner();
    assert_eq!(&answer.data.context("no data")?.value[..], b"raw");
    let (metadata, _) = app.last().context("was not called")?;
    assert_eq!(
        metadata.get("dapr-caller-app-id").map(|v| v.as_bytes()),
        Some(&b"caller"[..])
    );

    let error = client
        .on_invoke(to("called", invocation("fail", "")))
        .await
        .expect_err("fails");
    assert_eq!(
        (error.code(), error.message()),
        (Code::DataLoss, "all gone")
    );
    let unknown = client
        .list_topic_subscriptions(to("called", ()))
        .await
        .expect_err("is not there");
    assert_eq!(unknown.code(), Code::Unimplemented);

    // And through one's own sidecar.
    let mut own = AppCallbackClient::new(pair.called.channel().await?);
    let answer = own
        .on_invoke(to("called", invocation("echo", "own")))
        .await?
        .into_inner();
    assert_eq!(&answer.data.context("no data")?.value[..], b"own");
    Ok(())
}

#[tokio::test]
async fn the_proxy_passes_streams() -> Result<()> {
    let app = GrpcApp::start(echo).await?;
    let pair = Pair::start(|called| called.grpc_app(&app)).await?;
    let mut client = PlacementClient::new(pair.caller.channel().await?);
    let (send, hosts) = feed::<Host>();
    let host = |name: &str| Host {
        name: name.to_owned(),
        ..Default::default()
    };
    // The first message is there before the answer's headers are waited for.
    send.send(host("first")).await?;
    let response = client.report_dapr_status(to("called", hosts)).await?;
    let streams = response.metadata().get("streams").map(|v| v.as_bytes());
    assert_eq!(streams, Some(&b"both"[..]));
    let mut orders = response.into_inner();
    assert_eq!(orders.message().await?.context("ended")?.operation, "first");
    for name in ["second", "third"] {
        send.send(host(name)).await?;
        assert_eq!(orders.message().await?.context("ended")?.operation, name);
    }
    drop(send);
    assert!(orders.message().await?.is_none());
    Ok(())
}

/// Servers made with gRPC's C core reset a call whose authority is not there.
#[tokio::test]
async fn a_grpc_application_is_called_by_its_address() -> Result<()> {
    let answer = async || [("content-type", "application/grpc"), ("grpc-status", "15")];
    let app = HttpApp::start(axum::Router::new().fallback(answer)).await?;
    let pair = Pair::start(|called| called.app(&app).flag("--app-protocol=grpc")).await?;
    let address = format!("127.0.0.1:{}", app.port());
    let seen = || {
        let last = app.last().context("was not called")?;
        anyhow::Ok((last.target, last.authority))
    };

    let mut grpc = pair.caller.grpc().await?;
    let refused = grpc
        .invoke_service(call("called", invocation("echo", "")))
        .await;
    assert_eq!(refused.expect_err("fails").code(), Code::DataLoss);
    let path = "/dapr.proto.runtime.v1.AppCallback/OnInvoke";
    assert_eq!(seen()?, (path.to_owned(), Some(address.clone())));

    let mut proxied = AppCallbackClient::new(pair.caller.channel().await?);
    let refused = proxied.list_topic_subscriptions(to("called", ())).await;
    assert_eq!(refused.expect_err("fails").code(), Code::DataLoss);
    let path = "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions";
    assert_eq!(seen()?, (path.to_owned(), Some(address)));
    Ok(())
}
