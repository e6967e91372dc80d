use anyhow::{Context, Result};
use outrider_harness::{GrpcApp, Pair, feed, wait};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::placement::v1::placement_client::PlacementClient;
use outrider_proto::placement::v1::{Host, PlacementOrder};
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use tokio::sync::mpsc::Sender;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{Calls, for_calls};

const RULES: &str = "{retries: {quick: {duration: 10ms, maxRetries: 2, matching: {gRPCStatusCodes: '10,14'}}}, timeouts: {soon: 500ms}}";

async fn app(calls: &Calls) -> Result<GrpcApp> {
    let calls = calls.clone();
    GrpcApp::start(move |request: InvokeRequest| {
        let number = calls.next();
        match request.method.as_str() {
            "flaky" if number < 3 => Err(Status::aborted("not yet")),
            "abort" => Err(Status::aborted("never")),
            "lose" => Err(Status::data_loss("gone")),
            _ => Ok(InvokeResponse {
                data: request.data,
                content_type: "echo".to_owned(),
            }),
        }
    })
    .await
}

fn to_called<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let called = MetadataValue::from_static("called");
    request.metadata_mut().insert("dapr-app-id", called);
    request
}

fn invoke(method: &str) -> Request<InvokeRequest> {
    to_called(InvokeRequest {
        method: method.to_owned(),
        ..InvokeRequest::default()
    })
}

#[tokio::test]
async fn a_unary_call_is_retried() -> Result<()> {
    let calls = Calls::default();
    let app = app(&calls).await?;
    let rules = for_calls(RULES, "{retry: quick, timeout: soon}");
    let pair = Pair::both(
        |caller| caller.resource(&rules),
        |called| called.grpc_app(&app),
    )
    .await?;
    let mut client = AppCallbackClient::new(pair.caller.channel().await?);
    let answer = client.on_invoke(invoke("flaky")).await?.into_inner();
    assert_eq!((&*answer.content_type, calls.take()), ("echo", 3));
    let method = "endpoint[called, called:/dapr.proto.runtime.v1.AppCallback/OnInvoke]";
    pair.caller
        .line(&format!(
            "Recovered processing operation {method} after 3 attempts"
        ))
        .await?;
    for (method, code, tries) in [("abort", Code::Aborted, 3), ("lose", Code::DataLoss, 1)] {
        let error = client.on_invoke(invoke(method)).await.expect_err("fails");
        assert_eq!((error.code(), calls.take()), (code, tries), "{method}");
    }
    let unknown = client
        .list_topic_subscriptions(to_called(()))
        .await
        .expect_err("is not there");
    assert_eq!(unknown.code(), Code::Unimplemented);
    Ok(())
}

fn host(name: &str) -> Host {
    Host {
        name: name.to_owned(),
        ..Host::default()
    }
}

/// A stream through the proxy under these policies, with one message there and
/// back.
struct Streaming {
    client: PlacementClient<Channel>,
    send: Sender<Host>,
    orders: tonic::Streaming<PlacementOrder>,
    _pair: Pair,
    _app: GrpcApp,
}

async fn streaming(policies: &str) -> Result<Streaming> {
    let app = app(&Calls::default()).await?;
    let rules = for_calls(RULES, policies);
    let pair = Pair::both(
        |caller| caller.resource(&rules),
        |called| called.grpc_app(&app),
    )
    .await?;
    let mut client = PlacementClient::new(pair.caller.channel().await?);
    // Without the header that announces a stream.
    let (send, hosts) = feed::<Host>();
    send.send(host("first")).await?;
    let response = client.report_dapr_status(to_called(hosts)).await?;
    let mut orders = response.into_inner();
    let first = orders.message().await?.context("ended")?;
    assert_eq!(first.operation, "first");
    Ok(Streaming {
        client,
        send,
        orders,
        _pair: pair,
        _app: app,
    })
}

#[tokio::test]
async fn a_stream_is_not_retried() -> Result<()> {
    let Streaming {
        mut client,
        send,
        mut orders,
        _pair,
        _app,
    } = streaming("{retry: quick}").await?;
    send.send(host("second")).await?;
    let error = orders.message().await.expect_err("is no stream");
    assert_eq!(
        (error.code(), error.message()),
        (
            Code::FailedPrecondition,
            "cannot use resiliency policies with retries on streaming RPCs"
        )
    );

    let (send, hosts) = feed::<Host>();
    let mut request = to_called(hosts);
    let yes = MetadataValue::from_static("true");
    request.metadata_mut().insert("dapr-stream", yes);
    send.send(host("first")).await?;
    let mut orders = client.report_dapr_status(request).await?.into_inner();
    for name in ["first", "second", "third"] {
        if name != "first" {
            send.send(host(name)).await?;
        }
        assert_eq!(orders.message().await?.context("ended")?.operation, name);
    }
    drop(send);
    assert!(orders.message().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_stream_times_out() -> Result<()> {
    let mut streaming = streaming("{timeout: soon}").await?;
    // The application waits for a message that does not come.
    let orders = &mut streaming.orders;
    let ended = tokio::time::timeout(wait::LONG, orders.message()).await?;
    let error = ended.expect_err("is late");
    assert_eq!(
        (error.code(), error.message()),
        (Code::DeadlineExceeded, "context deadline exceeded")
    );
    Ok(())
}
