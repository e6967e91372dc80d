//! `pubsub.in-memory`: <https://docs.dapr.io/reference/components-reference/supported-pubsub/setup-inmemory/>.
//!
//! A subscription gets its messages one after the other, in the order in which
//! they were published. A message that its handler refuses is logged and gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use outrider_components::pubsub::{
    Broker, Feature, Handler, Message, PublishRequest, SubscribeRequest, Subscription,
};
use outrider_components::{Context, Error, Kind, Metadata};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages that wait for one subscription. Publishers wait when it is full.
const QUEUE: usize = 64;

struct Bus {
    subscribers: Subscribers,
    next: AtomicU64,
    closed: CancellationToken,
}

type Subscribers = Arc<RwLock<Vec<Subscriber>>>;

struct Subscriber {
    id: u64,
    topic: String,
    queue: mpsc::Sender<Message>,
}

impl Subscriber {
    /// A topic that ends in a star stands for all that are longer than it.
    fn wants(&self, topic: &str) -> bool {
        let starred = |prefix| topic.len() > str::len(prefix) && topic.starts_with(prefix);
        self.topic == topic || self.topic.strip_suffix('*').is_some_and(starred)
    }
}

/// Takes a subscriber off the list when its subscription ends.
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
        next: AtomicU64::new(0),
        closed: CancellationToken::new(),
    }))
}

impl Bus {
    fn open(&self) -> Result<(), Error> {
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
        self.open()?;
        let wanting: Vec<_> = self
            .subscribers
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .iter()
            .filter(|subscriber| subscriber.wants(&request.topic))
            .map(|subscriber| (subscriber.topic.clone(), subscriber.queue.clone()))
            .collect();
        for (topic, queue) in wanting {
            let message = Message {
                topic,
                data: request.data.clone(),
                metadata: request.metadata.clone(),
                content_type: None,
            };
            // A subscription that ends in between gets nothing.
            let _ = queue.send(message).await;
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        self.open()?;
        let (queue, mut messages) = mpsc::channel(QUEUE);
        let listed = Listed {
            id: self.next.fetch_add(1, Ordering::Relaxed),
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
                        // What was accepted before is still delivered.
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

    /// Hands messages to the test; refuses those that say so.
    struct Into(mpsc::UnboundedSender<Message>);

    #[async_trait]
    impl Handler for Into {
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
            .subscribe(request, Arc::new(Into(sender)))
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
    async fn every_subscriber_gets_every_message_in_order_and_once() {
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
    async fn a_star_stands_for_more() {
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
    async fn dropping_ends_delivery_and_closing_empties_the_queue() {
        let bus = bus().await;
        let (dropped, mut messages) = listen(&*bus, "t").await;
        drop(dropped);
        let ended = timeout(Duration::from_secs(5), messages.recv())
            .await
            .expect("in time");
        assert!(ended.is_none());
        bus.publish(&message("t", "nobody listens"))
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
    async fn a_full_queue_holds_the_publisher_back() {
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
            for _ in 0..QUEUE + 2 {
                bus.publish(&message("t", "x")).await.expect("publish");
            }
        };
        tokio::pin!(everything);
        let blocked = timeout(Duration::from_millis(50), &mut everything).await;
        assert!(
            blocked.is_err(),
            "one is handled, a queue full waits, one does not fit"
        );
        gate.add_permits(QUEUE + 2);
        timeout(Duration::from_secs(5), everything)
            .await
            .expect("goes on");
        subscription.close().await;
        assert_eq!(*taken.lock().expect("lock"), QUEUE + 2);
    }
}
