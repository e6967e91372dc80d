use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use outrider_components::Error;
use outrider_components::pubsub::{self as component, Feature, Handler, Message, PublishRequest};
use outrider_crds::subscription::Routes;
use outrider_proto::runtime::v1::SubscribeTopicEventsRequestProcessedAlpha1;
use tokio::sync::mpsc;

use super::stream::Sent;
use super::*;
use crate::blocks::pubsub::scope::Scopes;
use crate::components::instance::{Description, Instance, Policies};

/// Tells about every try to subscribe, and refuses the first ones.
struct Probe {
    refusals: AtomicU32,
    tries: mpsc::UnboundedSender<(String, Arc<dyn Handler>)>,
}

#[async_trait]
impl component::Broker for Probe {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, _: &PublishRequest) -> Result<(), Error> {
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<component::Subscription, Error> {
        let _ = self.tries.send((request.topic, handler));
        let taken = self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if taken.is_ok() {
            return Err(Error::unavailable("not yet"));
        }
        Ok(component::Subscription::new(&CancellationToken::new()))
    }
}

type Tries = mpsc::UnboundedReceiver<(String, Arc<dyn Handler>)>;

fn broker(refusals: u32) -> (Arc<Broker>, Tries) {
    let (tries, tries_rx) = mpsc::unbounded_channel();
    let description = Description {
        name: "p".into(),
        component_type: "pubsub.probe".into(),
        version: "v1".into(),
        capabilities: Vec::new(),
    };
    let inner: Arc<dyn component::Broker> = Arc::new(Probe {
        refusals: AtomicU32::new(refusals),
        tries,
    });
    let policies = Policies {
        resiliency: Resiliency::default(),
        block: outrider_resiliency::Block::PubSub,
    };
    let broker = Broker {
        instance: Instance::new(description, inner, policies, Default::default()),
        scopes: Scopes::default(),
        prefix: "ns".into(),
        metrics: Default::default(),
    };
    (Arc::new(broker), tries_rx)
}

fn spec(topic: &str, path: &str) -> Spec {
    Spec {
        pubsubname: "p".into(),
        topic: topic.into(),
        routes: Routes {
            default: path.into(),
            rules: Vec::new(),
        },
        ..Spec::default()
    }
}

fn subscription(source: Source, topic: &str, path: &str) -> Arc<Subscription> {
    Arc::new(Subscription::new(source, spec(topic, path)).unwrap())
}

fn subscriber(brokers: Arc<Map<Broker>>) -> Subscriber {
    Subscriber::new(Options {
        app_id: "app".into(),
        brokers,
        channel: None,
        asks: true,
        resiliency: Resiliency::default(),
        workers: Workers::with_threads(1).unwrap(),
        tasks: Tasks::new(),
        stores: Arc::default(),
        namespace: String::new(),
    })
}

fn outlet() -> (Arc<Outlet>, mpsc::Receiver<Sent>) {
    let (events, sent) = mpsc::channel(4);
    (Arc::new(Outlet::new(events)), sent)
}

#[test]
fn the_application_beats_resources_and_the_first_resource_the_others() {
    let state = State {
        declared: [
            ("1", subscription(Source::Declarative, "a", "/1")),
            ("2", subscription(Source::Declarative, "b", "/2")),
            ("3", subscription(Source::Declarative, "a", "/3")),
        ]
        .map(|(name, subscription)| (name.to_owned(), subscription))
        .into(),
        programmatic: vec![
            subscription(Source::Programmatic, "b", "/4"),
            subscription(Source::Programmatic, "c", "/5"),
            subscription(Source::Programmatic, "c", "/6"),
        ],
        ..State::default()
    };
    let of_app = state.of_app();
    let all: Vec<_> = of_app
        .iter()
        .map(|s| (s.spec.topic.as_str(), s.spec.routes.default.as_str()))
        .collect();
    assert_eq!(all, [("a", "/1"), ("b", "/4"), ("c", "/6")]);
}

#[test]
fn what_makes_no_sense() {
    let mut wrong = spec("a", "/a");
    wrong.metadata.insert("rawPayload".into(), "maybe".into());
    assert_eq!(
        Subscription::new(Source::Declarative, wrong).unwrap_err(),
        "rawPayload value must be a valid boolean: actual is 'maybe'"
    );
}

#[tokio::test]
async fn a_stream_gets_events_and_a_new_broker_is_subscribed_to_again() {
    let brokers = Arc::new(Map::default());
    let (first, mut tries) = broker(0);
    brokers.insert("p", first);
    let subscriber = subscriber(brokers.clone());
    let (outlet, mut sent) = outlet();
    let stream = subscription(Source::Streaming, "t", "/");
    let number = subscriber.add(stream, outlet.clone()).await.unwrap();
    let (topic, handler) = tries.recv().await.unwrap();
    assert_eq!(topic, "nst");
    assert_eq!(subscriber.subscriptions().len(), 1);

    let message = Message {
        topic,
        data: r#"{"id":"1","data":"x","datacontenttype":"text/plain"}"#.into(),
        ..Message::default()
    };
    let client = async {
        let event = sent.recv().await.unwrap().unwrap();
        let Some(stream::Content::EventMessage(event)) = event.subscribe_topic_events_response_type
        else {
            panic!("no event");
        };
        assert_eq!(
            (event.topic.as_str(), event.pubsub_name.as_str()),
            ("t", "p")
        );
        assert_eq!(event.data, "x");
        let processed = SubscribeTopicEventsRequestProcessedAlpha1 {
            id: event.id,
            status: None,
        };
        outlet.answer(processed);
    };
    let (handled, ()) = tokio::join!(handler.handle(message), client);
    handled.unwrap();

    let (second, mut tries) = broker(0);
    brokers.insert("p", second);
    subscriber.refresh().await;
    assert_eq!(tries.recv().await.unwrap().0, "nst");
    subscriber.remove(number);
    assert!(subscriber.subscriptions().is_empty());
    subscriber.end().await;
}

#[tokio::test]
async fn a_stream_that_cannot_subscribe_is_told_why() {
    let brokers = Arc::new(Map::default());
    brokers.insert("p", broker(1).0);
    let subscriber = subscriber(brokers);
    let stream = subscription(Source::Streaming, "t", "/");
    let error = subscriber.add(stream, outlet().0).await.unwrap_err();
    assert_eq!(error, "failed to subscribe to topic t: not yet");
    assert!(subscriber.subscriptions().is_empty());
    subscriber.end().await;
    let late = subscription(Source::Streaming, "t", "/");
    assert_eq!(
        subscriber.add(late, outlet().0).await.unwrap_err(),
        "stream closed"
    );
}

fn event(id: &str) -> Message {
    Message {
        topic: "nst".into(),
        data: format!(r#"{{"id":"{id}","data":"x","datacontenttype":"text/plain"}}"#).into(),
        ..Message::default()
    }
}

fn inlet(policies: serde_json::Value, outlet: &Arc<Outlet>) -> Inlet {
    let resiliency = Resiliency::default();
    let resource = serde_json::json!({"spec": {
        "policies": policies,
        "targets": {"components": {"p": {"inbound": {"retry": "r", "timeout": "t"}}}},
    }});
    resiliency.replace(&[outrider_crds::decode::from_value(&resource).unwrap()]);
    Inlet {
        broker: broker(0).0,
        subscription: subscription(Source::Streaming, "t", "/"),
        to: To::Stream(outlet.clone()),
        stop: CancellationToken::new(),
        resiliency,
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_not_answered_in_time_is_made_again() {
    let (outlet, mut sent) = outlet();
    let policies = serde_json::json!({
        "retries": {"r": {"duration": "1s", "maxRetries": 3}},
        "timeouts": {"t": "10s"},
    });
    let inlet = inlet(policies, &outlet);
    let client = async {
        for answers in [false, true] {
            sent.recv().await.unwrap().unwrap();
            if answers {
                outlet.answer(SubscribeTopicEventsRequestProcessedAlpha1 {
                    id: "1".into(),
                    status: None,
                });
            }
        }
    };
    let began = tokio::time::Instant::now();
    let (handled, ()) = tokio::join!(inlet.handle(event("1")), client);
    handled.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(11));
    assert!(outlet.is_idle());
}

#[tokio::test(start_paused = true)]
async fn no_delivery_is_made_again_once_the_subscription_ends() {
    let (outlet, mut sent) = outlet();
    let policies =
        serde_json::json!({"retries": {"r": {"duration": "1h"}}, "timeouts": {"t": "1s"}});
    let inlet = inlet(policies, &outlet);
    let ending = async {
        sent.recv().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        inlet.stop.cancel();
    };
    let began = tokio::time::Instant::now();
    let (handled, ()) = tokio::join!(inlet.handle(event("1")), ending);
    assert_eq!(
        handled.unwrap_err().to_string(),
        "context deadline exceeded"
    );
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}
