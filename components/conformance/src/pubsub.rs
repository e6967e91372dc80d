//! The suite for brokers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::pubsub::{
    Broker, BulkPublishRequest, Entry, Feature, Handler, Message, PublishRequest, SubscribeRequest,
    Subscription,
};
use outrider_components::{Error, Kind, Pairs};

use crate::server::Server;
use crate::{eventually, unique};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What a broker guarantees beyond its features.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// A message that is not acknowledged is delivered again within ten seconds.
    pub redelivers: bool,
    /// The broker keeps messages for an application that has subscribed once.
    pub durable: bool,
    /// Each message goes to one instance of an application.
    pub groups: bool,
    /// A subscription's messages come in the order of publication.
    pub ordered: bool,
    /// What the publisher says about a message arrives with it.
    pub metadata: bool,
    /// What makes a topic a pattern when it follows, and a topic that matches.
    pub wildcard: (&'static str, &'static str),
}

impl Default for Promises {
    /// The least.
    fn default() -> Promises {
        Promises {
            redelivers: false,
            durable: false,
            groups: false,
            ordered: false,
            metadata: true,
            wildcard: ("*", "-1"),
        }
    }
}

/// Connects an instance of an application.
#[async_trait]
pub trait Connect: Send + Sync {
    async fn connect(&self, app: &str) -> Arc<dyn Broker>;
}

/// Tests everything that the broker guarantees.
pub async fn run(connect: &dyn Connect, promises: Promises) {
    delivery(connect, promises).await;
    fan_out(connect).await;
    closing(connect, promises).await;
    if promises.groups {
        groups(connect).await;
    }
    if promises.redelivers {
        failed(connect).await;
        interrupted(connect).await;
    }
    if promises.durable {
        durable(connect).await;
    }
}

/// Keeps the messages that arrive, and fails on some.
#[derive(Default)]
struct Inbox {
    messages: Mutex<Vec<Message>>,
    /// How many times to fail on a text.
    fail: Mutex<HashMap<String, u32>>,
    /// Never returns from handling a message.
    hangs: bool,
}

impl Inbox {
    fn failing(text: &str, times: u32) -> Arc<Inbox> {
        Arc::new(Inbox {
            fail: Mutex::new(HashMap::from([(text.to_owned(), times)])),
            ..Inbox::default()
        })
    }

    fn texts(&self) -> Vec<String> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages
            .iter()
            .map(|message| String::from_utf8_lossy(&message.data).into_owned())
            .collect()
    }

    fn count(&self, text: &str) -> usize {
        self.texts().iter().filter(|have| *have == text).count()
    }

    async fn receives(&self, count: usize) {
        eventually("the messages arrive", TIMEOUT, || async {
            self.texts().len() >= count
        })
        .await;
    }
}

#[async_trait]
impl Handler for Inbox {
    async fn handle(&self, message: Message) -> Result<(), Error> {
        let text = String::from_utf8_lossy(&message.data).into_owned();
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let mut fail = self.fail.lock().unwrap_or_else(PoisonError::into_inner);
        match fail.get_mut(&text) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err(Error::internal("failed"))
            }
            _ => Ok(()),
        }
    }
}

async fn subscribe(broker: &dyn Broker, topic: &str, inbox: &Arc<Inbox>) -> Subscription {
    let request = SubscribeRequest {
        topic: topic.to_owned(),
        metadata: Pairs::new(),
    };
    broker
        .subscribe(request, inbox.clone())
        .await
        .expect("subscribe")
}

async fn publish(broker: &dyn Broker, topic: &str, text: &str) {
    let request = PublishRequest {
        topic: topic.to_owned(),
        data: Bytes::copy_from_slice(text.as_bytes()),
        metadata: Pairs::from([("about".to_owned(), format!("\"{text}\""))]),
        content_type: None,
    };
    broker.publish(&request).await.expect("publish");
}

async fn delivery(connect: &dyn Connect, promises: Promises) {
    let broker = connect.connect("app").await;
    let topic = unique("delivery");
    let inbox = Arc::new(Inbox::default());
    let _subscription = subscribe(&*broker, &topic, &inbox).await;
    let texts: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for text in &texts {
        publish(&*broker, &topic, text).await;
    }
    inbox.receives(texts.len()).await;
    let mut arrived = inbox.texts();
    if !promises.ordered {
        arrived.sort_by_key(|text| text.parse::<u32>().expect("is a number"));
    }
    assert_eq!(arrived, texts, "each once");
    {
        let messages = inbox
            .messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for message in &*messages {
            assert_eq!(message.topic, topic);
            if !promises.metadata {
                continue;
            }
            let text = String::from_utf8_lossy(&message.data);
            assert_eq!(message.metadata["about"], format!("\"{text}\""));
        }
    }

    let entry = |id: &str, text: &str| Entry {
        id: id.to_owned(),
        data: Bytes::copy_from_slice(text.as_bytes()),
        ..Entry::default()
    };
    let request = BulkPublishRequest {
        topic: topic.clone(),
        entries: vec![entry("1", "bulk a"), entry("2", "bulk b")],
        metadata: Pairs::new(),
    };
    assert!(
        broker
            .bulk_publish(&request)
            .await
            .expect("bulk publish")
            .is_empty()
    );
    inbox.receives(texts.len() + 2).await;
    assert_eq!((inbox.count("bulk a"), inbox.count("bulk b")), (1, 1));

    if broker.features().contains(&Feature::SubscribeWildcards) {
        let prefix = unique("star");
        let inbox = Arc::new(Inbox::default());
        let (pattern, matching) = promises.wildcard;
        let _subscription = subscribe(&*broker, &format!("{prefix}{pattern}"), &inbox).await;
        let matching = format!("{prefix}{matching}");
        for topic in [&unique("other"), &matching] {
            publish(&*broker, topic, topic).await;
        }
        inbox.receives(1).await;
        assert_eq!(inbox.texts(), [matching]);
    }
    broker.close().await.expect("close");
}

/// Two applications each get every message.
async fn fan_out(connect: &dyn Connect) {
    let (one, two) = (connect.connect("one").await, connect.connect("two").await);
    let topic = unique("fan-out");
    let inboxes = [Arc::new(Inbox::default()), Arc::new(Inbox::default())];
    let _first = subscribe(&*one, &topic, &inboxes[0]).await;
    let _second = subscribe(&*two, &topic, &inboxes[1]).await;
    for text in ["a", "b"] {
        publish(&*one, &topic, text).await;
    }
    for inbox in &inboxes {
        inbox.receives(2).await;
        assert_eq!((inbox.count("a"), inbox.count("b")), (1, 1));
    }
    one.close().await.expect("close");
    two.close().await.expect("close");
}

async fn closing(connect: &dyn Connect, promises: Promises) {
    let broker = connect.connect("closing").await;
    let topic = unique("closing");
    let (before, after) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
    let subscription = subscribe(&*broker, &topic, &before).await;
    publish(&*broker, &topic, "first").await;
    before.receives(1).await;
    subscription.close().await;
    publish(&*broker, &topic, "second").await;
    let _again = subscribe(&*broker, &topic, &after).await;
    publish(&*broker, &topic, "third").await;
    after.receives(1 + usize::from(promises.durable)).await;
    assert_eq!(before.texts(), ["first"], "nothing came after closing");
    assert_eq!(after.count("second"), usize::from(promises.durable));
    assert_eq!(after.count("third"), 1);

    broker.close().await.expect("close");
    let late = PublishRequest {
        topic,
        ..PublishRequest::default()
    };
    let error = broker.publish(&late).await.expect_err("is closed");
    assert_eq!(error.kind(), Kind::Precondition);
}

/// Two instances of one application share the messages.
async fn groups(connect: &dyn Connect) {
    let (one, two) = (
        connect.connect("shared").await,
        connect.connect("shared").await,
    );
    let topic = unique("groups");
    let (left, right) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
    let _first = subscribe(&*one, &topic, &left).await;
    let _second = subscribe(&*two, &topic, &right).await;
    for n in 0..100 {
        publish(&*one, &topic, &n.to_string()).await;
    }
    eventually("the messages arrive", TIMEOUT, || async {
        left.texts().len() + right.texts().len() >= 100
    })
    .await;
    let mut all = left.texts();
    all.extend(right.texts());
    all.sort_by_key(|text| text.parse::<u32>().expect("is a number"));
    let wanted: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(all, wanted, "each to one of the two");
    one.close().await.expect("close");
    two.close().await.expect("close");
}

/// A message whose handler fails is delivered again, any other is not.
async fn failed(connect: &dyn Connect) {
    let broker = connect.connect("failed").await;
    let topic = unique("failed");
    let inbox = Inbox::failing("bad", 2);
    let _subscription = subscribe(&*broker, &topic, &inbox).await;
    for text in ["good", "bad", "fine"] {
        publish(&*broker, &topic, text).await;
    }
    eventually(
        "the message is delivered until it is handled",
        TIMEOUT,
        || async { inbox.count("bad") == 3 },
    )
    .await;
    assert_eq!((inbox.count("good"), inbox.count("fine")), (1, 1));
    broker.close().await.expect("close");
}

/// A message that an instance was handling when it died goes to another.
async fn interrupted(connect: &dyn Connect) {
    let dying = connect.connect("dies").await;
    let topic = unique("interrupted");
    let hanging = Arc::new(Inbox {
        hangs: true,
        ..Inbox::default()
    });
    let subscription = subscribe(&*dying, &topic, &hanging).await;
    publish(&*dying, &topic, "begun").await;
    hanging.receives(1).await;
    drop(subscription);
    drop(dying);
    let other = connect.connect("dies").await;
    let inbox = Arc::new(Inbox::default());
    let _subscription = subscribe(&*other, &topic, &inbox).await;
    inbox.receives(1).await;
    assert_eq!(inbox.texts(), ["begun"]);
    other.close().await.expect("close");
}

/// A message that is published while no instance runs is delivered to the next.
async fn durable(connect: &dyn Connect) {
    let broker = connect.connect("away").await;
    let topic = unique("durable");
    let inbox = Arc::new(Inbox::default());
    subscribe(&*broker, &topic, &inbox).await.close().await;
    broker.close().await.expect("close");
    let publisher = connect.connect("publisher").await;
    publish(&*publisher, &topic, "kept").await;
    let back = connect.connect("away").await;
    let _subscription = subscribe(&*back, &topic, &inbox).await;
    inbox.receives(1).await;
    assert_eq!(inbox.texts(), ["kept"]);
    back.close().await.expect("close");
}

/// A message whose handler fails goes where `dead` says for an application and
/// a topic.
pub async fn dead_letters(connect: &dyn Connect, dead: impl Fn(&str, &str) -> String) {
    let broker = connect.connect("mourned").await;
    let topic = unique("dead");
    let (inbox, letters) = (Inbox::failing("bad", 1), Arc::new(Inbox::default()));
    let _subscription = subscribe(&*broker, &topic, &inbox).await;
    let other = connect.connect("mourner").await;
    let _letters = subscribe(&*other, &dead("mourned", &topic), &letters).await;
    for text in ["good", "bad"] {
        publish(&*broker, &topic, text).await;
    }
    letters.receives(1).await;
    assert_eq!(letters.texts(), ["bad"]);
    assert_eq!((inbox.count("good"), inbox.count("bad")), (1, 1));
    broker.close().await.expect("close");
    other.close().await.expect("close");
}

/// While messages are published, the server dies and comes back. What the
/// broker has acknowledged is delivered, and publishing goes on by itself.
/// `unwritten` is how long the server may keep what it has acknowledged before
/// it writes that down.
pub async fn survives(connect: &dyn Connect, server: &mut Server, unwritten: Duration) {
    let broker = connect.connect("survivor").await;
    let topic = unique("survives");
    let inbox = Arc::new(Inbox::default());
    let _subscription = subscribe(&*broker, &topic, &inbox).await;
    let mut acknowledged: Vec<(String, std::time::Instant)> = Vec::new();
    let publishing = async {
        for n in 0.. {
            let request = PublishRequest {
                topic: topic.clone(),
                data: Bytes::from(format!("{n}")),
                ..PublishRequest::default()
            };
            match broker.publish(&request).await {
                Ok(()) => acknowledged.push((n.to_string(), std::time::Instant::now())),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let outage = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let killed = std::time::Instant::now();
        server.kill().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.restart().await;
        let back = std::time::Instant::now();
        tokio::time::sleep(TIMEOUT).await;
        (killed, back)
    };
    let (killed, back) = tokio::select! {
        times = outage => times,
        () = publishing => unreachable!("it never ends"),
    };
    let resumed = acknowledged.iter().any(|(_, at)| *at > back);
    assert!(resumed, "publishing goes on within {TIMEOUT:?}");
    // Between the two it answered nobody, or just before its end.
    acknowledged.retain(|(_, at)| unwritten.is_zero() || *at + unwritten <= killed || *at > back);
    eventually("all that was acknowledged arrives", TIMEOUT * 2, || async {
        let texts: std::collections::HashSet<_> = inbox.texts().into_iter().collect();
        acknowledged.iter().all(|(text, _)| texts.contains(text))
    })
    .await;
    broker.close().await.expect("close");
}
