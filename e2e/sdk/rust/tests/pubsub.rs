use anyhow::{Context, Result, bail};
use dapr::dapr::proto::runtime::v1::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Ask;
use dapr::dapr::proto::runtime::v1::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Answer;
use dapr::dapr::proto::runtime::v1::topic_event_response::TopicEventResponseStatus;
use dapr::dapr::proto::runtime::v1::{
    SubscribeTopicEventsRequestAlpha1, SubscribeTopicEventsRequestInitialAlpha1,
    SubscribeTopicEventsRequestProcessedAlpha1, TopicEventResponse,
};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use crate::app::App;
use crate::sidecar::{BROKER, Setup, map, refused, within};

#[tokio::test]
async fn an_application_subscribes() -> Result<()> {
    let mut app = App::start().await?;
    let metadata = Some(map(&[("cloudevent.id", "one")]));
    let data = br#"{"n":1}"#.to_vec();
    app.client
        .publish_event(BROKER, "orders", "application/json", data.clone(), metadata)
        .await?;
    let event = within("the event arrives", app.events.recv())
        .await?
        .context("no event")?;
    assert_eq!(event.id, "one");
    assert_eq!(event.source, app.sidecar.id);
    assert_eq!(event.r#type, "com.dapr.event.sent");
    assert_eq!(event.data_content_type, "application/json");
    assert_eq!(event.data, data);
    let listed = app.client.get_metadata().await?.subscriptions;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].topic, "orders");
    Ok(())
}

#[tokio::test]
async fn a_stream_subscribes() -> Result<()> {
    let (sidecar, mut client) = Setup::default().ready().await?;
    let (sender, requests) = mpsc::channel(8);
    let send = async |ask| {
        let request = SubscribeTopicEventsRequestAlpha1 {
            subscribe_topic_events_request_type: Some(ask),
        };
        sender.send(request).await
    };
    let first = SubscribeTopicEventsRequestInitialAlpha1 {
        pubsub_name: BROKER.to_owned(),
        topic: "pulled".to_owned(),
        ..Default::default()
    };
    send(Ask::InitialRequest(first)).await?;
    let mut generated = sidecar.generated().await?;
    let opened = generated.subscribe_topic_events_alpha1(ReceiverStream::new(requests));
    let mut answers = within("the stream opens", opened).await??.into_inner();
    let mut next = async || {
        let answer = within("the stream answers", answers.message()).await??;
        anyhow::Ok(answer.and_then(|a| a.subscribe_topic_events_response_type))
    };
    let Some(Answer::InitialResponse(_)) = next().await? else {
        bail!("no first answer");
    };
    for text in ["one", "two"] {
        let data = text.as_bytes().to_vec();
        client
            .publish_event(BROKER, "pulled", "text/plain", data.clone(), None)
            .await?;
        let Some(Answer::EventMessage(event)) = next().await? else {
            bail!("no event");
        };
        assert_eq!(event.data, data);
        let processed = SubscribeTopicEventsRequestProcessedAlpha1 {
            id: event.id,
            status: Some(TopicEventResponse {
                status: TopicEventResponseStatus::Success as i32,
            }),
        };
        send(Ask::EventProcessed(processed)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn errors() -> Result<()> {
    let (_sidecar, mut client) = Setup::default().ready().await?;
    let nowhere = client.publish_event("nowhere", "t", "text/plain", b"x".to_vec(), None);
    refused(
        nowhere.await,
        "InvalidArgument",
        "pubsub nowhere is not found",
    );
    Ok(())
}
