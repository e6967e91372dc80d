//! `pubsub.in-memory`: <https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-inmemory/>.
//!
//! A subscription gets its messages one after the other, in the order in which
//! they were published. A message whose handler fails is logged and dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use outrider_components::pubsub::{
    Broker, Feature, Handler, Message, PublishRequest, SubscribeRequest, Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// There are no metadata fields.
pub const FIELDS: &[&[Field]] = &[];

/// Messages that wait for one subscription. Publishers wait when it is full.
const QUEUE_SIZE: usize = 64;

struct Bus {
    subscribers: Subscribers,
    next_id: AtomicU64,
    closed: CancellationToken,
}

type Subscribers = Arc<RwLock<Vec<Subscriber>>>;

struct Subscriber {
    id: u64,
    topic: String,
    queue: mpsc::Sender<Message>,
}

impl Subscriber {
    /// A topic that ends in a star matches longer topics that start like it.
    fn matches(&self, topic: &str) -> bool {
        let is_longer = |prefix| topic.len() > str::len(prefix) && topic.starts_with(prefix);
        self.topic == topic || self.topic.strip_suffix('*').is_some_and(is_longer)
    }
}

/// Removes a subscriber from the list when it is dropped.
struct Listed {
    id: u64,
    subscribers: Subscribers,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut subscribers = self.subscribers.write().unwrap_or_else(|e| e.into_inner());
        subscribers.retain(|subscriber| subscriber.id != self.id);
    }
}

/// Needs no configuration.
pub async fn connect(_: Metadata, _: Context) -> Result<Arc<dyn Broker>, Error> {
    Ok(Arc::new(Bus {
        subscribers: Subscribers::default(),
        next_id: AtomicU64::new(0),
        closed: CancellationToken::new(),
    }))
}

impl Bus {
    fn check_open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::new(Kind::Precondition, "component is closed"));
        }
        Ok(())
    }
}

#[async_trait]
impl Broker for Bus {
    fn features(&self) -> &[Feature] {
        &[Feature::SubscribeWildcards]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Error> {
        self.check_open()?;
        let matching: Vec<_> = self
            .subscribers
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .iter()
            .filter(|subscriber| subscriber.matches(&request.topic))
            .map(|subscriber| (subscriber.topic.clone(), subscriber.queue.clone()))
            .collect();
        for (topic, queue) in matching {
            let message = Message {
                topic,
                data: request.data.clone(),
                metadata: request.metadata.clone(),
                content_type: None,
            };
            // Fails if the subscription has ended.
            let _ = queue.send(message).await;
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        self.check_open()?;
        let (queue, mut messages) = mpsc::channel(QUEUE_SIZE);
        let listed = Listed {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            subscribers: self.subscribers.clone(),
        };
        let subscriber = Subscriber {
            id: listed.id,
            topic: request.topic,
            queue,
        };
        self.subscribers
            .write()
            .unwrap_or_else(|e| e.into_inner())
            .push(subscriber);
        let mut subscription = Subscription::new(&self.closed);
        let stopping = subscription.stopping();
        subscription.spawn(async move {
            let _listed = listed;
            loop {
                let message = tokio::select! {
                    biased;
                    message = messages.recv() => message,
                    () = stopping.cancelled(), if !messages.is_closed() => {
                        // Messages in the queue are still delivered.
                        messages.close();
                        continue;
                    }
                };
                let Some(message) = message else { return };
                if let Err(error) = handler.handle(message).await {
                    tracing::error!(target: "dapr.contrib", "{error}");
                }
            }
        });
        Ok(subscription)
    }

    async fn close(&self) -> Result<(), Error> {
        self.closed.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use bytes::Bytes;
    use outrider_components::Pairs;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    async fn bus() -> Arc<dyn Broker> {
        connect(Metadata::default(), Context::default())
            .await
            .expect("needs nothing")
    }

    fn message(topic: &str, text: &str) -> PublishRequest {
        PublishRequest {
            topic: topic.to_owned(),
            data: Bytes::copy_from_slice(text.as_bytes()),
            metadata: Pairs::from([("key".to_owned(), text.to_owned())]),
            content_type: None,
        }
    }

    /// Sends messages to the test, and fails on those that are `refuse`.
    struct Forward(mpsc::UnboundedSender<Message>);

    #[async_trait]
    impl Handler for Forward {
        async fn handle(&self, message: Message) -> Result<(), Error> {
            let refused = message.data == "refuse";
            self.0.send(message).expect("the test listens");
            if refused {
                Err(Error::internal("refused"))
            } else {
                Ok(())
            }
        }
    }

    async fn listen(
        bus: &dyn Broker,
        topic: &str,
    ) -> (Subscription, mpsc::UnboundedReceiver<Message>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let request = SubscribeRequest {
            topic: topic.to_owned(),
            metadata: Pairs::new(),
        };
        let subscription = bus
            .subscribe(request, Arc::new(Forward(sender)))
            .await
            .expect("subscribe");
        (subscription, receiver)
    }

    async fn next(messages: &mut mpsc::UnboundedReceiver<Message>) -> Message {
        timeout(Duration::from_secs(5), messages.recv())
            .await
            .expect("in time")
            .expect("subscribed")
    }

    #[tokio::test]
    async fn every_subscriber_gets_every_message_once_and_in_order() {
        let bus = bus().await;
        let (_first, mut one) = listen(&*bus, "orders").await;
        let (_second, mut two) = listen(&*bus, "orders").await;
        for text in ["a", "refuse", "c"] {
            bus.publish(&message("orders", text))
                .await
                .expect("publish");
        }
        for messages in [&mut one, &mut two] {
            for text in ["a", "refuse", "c"] {
                let got = next(messages).await;
                assert_eq!(got.data, text);
                assert_eq!(got.metadata["key"], text);
            }
        }
    }

    #[tokio::test]
    async fn a_topic_that_ends_in_a_star_matches_longer_topics() {
        let bus = bus().await;
        let (_subscription, mut messages) = listen(&*bus, "topic*").await;
        for topic in ["topic", "other", "topic1"] {
            bus.publish(&message(topic, topic)).await.expect("publish");
        }
        let got = next(&mut messages).await;
        assert_eq!(
            (got.topic.as_str(), &got.data[..]),
            ("topic*", &b"topic1"[..])
        );
    }

    #[tokio::test]
    async fn dropping_ends_delivery_and_closing_delivers_the_queue_first() {
        let bus = bus().await;
        let (dropped, mut messages) = listen(&*bus, "t").await;
        drop(dropped);
        let ended = timeout(Duration::from_secs(5), messages.recv())
            .await
            .expect("in time");
        assert!(ended.is_none());
        bus.publish(&message("t", "not received"))
            .await
            .expect("publish");

        let (kept, mut messages) = listen(&*bus, "t").await;
        for text in ["1", "2"] {
            bus.publish(&message("t", text)).await.expect("publish");
        }
        kept.close().await;
        assert_eq!(next(&mut messages).await.data, "1");
        assert_eq!(next(&mut messages).await.data, "2");

        bus.close().await.expect("close");
        let error = bus
            .publish(&message("t", "late"))
            .await
            .expect_err("is closed");
        assert_eq!(error.to_string(), "component is closed");
        assert!(!error.retry_safe());
    }

    #[tokio::test]
    async fn publishing_waits_while_a_queue_is_full() {
        let bus = bus().await;
        let gate = Arc::new(Semaphore::new(0));
        let taken = Arc::new(Mutex::new(0));
        let request = SubscribeRequest {
            topic: "t".to_owned(),
            metadata: Pairs::new(),
        };
        let handler = {
            let (gate, taken) = (gate.clone(), taken.clone());
            move |_: Message| {
                let (gate, taken) = (gate.clone(), taken.clone());
                async move {
                    gate.acquire().await.expect("stays open").forget();
                    *taken.lock().expect("lock") += 1;
                    Ok(())
                }
            }
        };
        let subscription = bus
            .subscribe(request, Arc::new(handler))
            .await
            .expect("subscribe");
        let everything = async {
            for _ in 0..QUEUE_SIZE + 2 {
                bus.publish(&message("t", "x")).await.expect("publish");
            }
        };
        tokio::pin!(everything);
        let blocked = timeout(Duration::from_millis(50), &mut everything).await;
        assert!(
            blocked.is_err(),
            "one is being handled, the queue is full, one does not fit"
        );
        gate.add_permits(QUEUE_SIZE + 2);
        timeout(Duration::from_secs(5), everything)
            .await
            .expect("goes on");
        subscription.close().await;
        assert_eq!(*taken.lock().expect("lock"), QUEUE_SIZE + 2);
    }
}
