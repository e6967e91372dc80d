use std::collections::BTreeSet;

use outrider_components::pubsub::{self, Feature, PublishRequest, Subscription};
use outrider_components::state::{self, Item, SetRequest};
use outrider_resiliency::{Block, Resiliency};
use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::*;
use crate::blocks::state::prefix::Prefix;
use crate::components::instance::{Description, Instance, Policies};

/// A broker that tells who subscribes and what is published, and fails as often
/// as the test wants.
struct Bus {
    subscribed: mpsc::UnboundedSender<(String, Arc<dyn Handler>)>,
    published: Arc<Mutex<Vec<(String, Json)>>>,
    refusals: Arc<Mutex<u32>>,
}

#[async_trait]
impl pubsub::Broker for Bus {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<(), Cause> {
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err(Cause::unavailable("not now"));
        }
        let event = serde_json::from_slice(&request.data).unwrap();
        self.published
            .lock()
            .unwrap()
            .push((request.topic.clone(), event));
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequest,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Cause> {
        let _ = self.subscribed.send((request.topic, handler));
        Ok(Subscription::new(&CancellationToken::new()))
    }
}

/// The keys that are there. Deletes fail where the test wants it.
#[derive(Default)]
struct Shelf {
    keys: Mutex<BTreeSet<String>>,
    keeps: bool,
}

#[async_trait]
impl state::Store for Shelf {
    fn features(&self) -> &[state::Feature] {
        &[]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Cause> {
        let has = self.keys.lock().unwrap().contains(&request.key);
        Ok(has.then(|| Item {
            value: Bytes::from_static(b"\"0\""),
            ..Item::default()
        }))
    }

    async fn set(&self, _: &SetRequest) -> Result<(), Cause> {
        Ok(())
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Cause> {
        if self.keeps {
            return Err(Cause::unavailable("not now"));
        }
        self.keys.lock().unwrap().remove(&request.key);
        Ok(())
    }
}

fn instance<T: ?Sized + Send + Sync>(name: &str, inner: Arc<T>, block: Block) -> Instance<T> {
    let description = Description {
        name: name.into(),
        component_type: "probe".into(),
        version: "v1".into(),
        capabilities: Vec::new(),
    };
    let policies = Policies {
        resiliency: Resiliency::default(),
        block,
    };
    Instance::new(description, inner, policies, Default::default())
}

struct Setup {
    outbox: Arc<Outbox>,
    relay: Relay,
    brokers: Arc<Map<Broker>>,
    stores: Arc<Map<Store>>,
    subscribed: mpsc::UnboundedReceiver<(String, Arc<dyn Handler>)>,
    published: Arc<Mutex<Vec<(String, Json)>>>,
    refusals: Arc<Mutex<u32>>,
}

impl Setup {
    fn new() -> Self {
        let (subscribed, subscribed_rx) = mpsc::unbounded_channel();
        let (published, refusals) = (Arc::default(), Arc::default());
        let bus: Arc<dyn pubsub::Broker> = Arc::new(Bus {
            subscribed,
            published: Arc::clone(&published),
            refusals: Arc::clone(&refusals),
        });
        let brokers = Arc::<Map<Broker>>::default();
        let broker = Broker {
            instance: instance("p", bus, Block::PubSub),
            scopes: Default::default(),
            prefix: String::new(),
            metrics: Default::default(),
        };
        brokers.insert("p", Arc::new(broker));
        let stores = Arc::<Map<Store>>::default();
        let outbox = Outbox::new("app".into(), "ns".into(), brokers.clone());
        let outbox = Arc::new(outbox);
        let workers = Workers::with_threads(1).unwrap();
        let relay = Relay::new(outbox.clone(), stores.clone(), workers, Tasks::new());
        Self {
            outbox,
            relay,
            brokers,
            stores,
            subscribed: subscribed_rx,
            published,
            refusals,
        }
    }

    /// A store with an outbox for the topic.
    fn store(&self, name: &str, topic: &str, discard: bool, shelf: Shelf) -> Arc<Shelf> {
        let shelf = Arc::new(shelf);
        let inner: Arc<dyn state::Store> = shelf.clone();
        let store = Store {
            is_for_actors: false,
            instance: instance(name, inner, Block::StateStore),
            prefix: Prefix::new(None, "app", "", name).unwrap(),
            keys: None,
            outbox: Some(Settings {
                pubsub: "p".into(),
                topic: topic.into(),
                inner_pubsub: "p".into(),
                discard,
            }),
        };
        self.stores.insert(name, Arc::new(store));
        shelf
    }

    async fn handler(&mut self) -> (String, Arc<dyn Handler>) {
        self.relay.follow(false);
        self.subscribed.recv().await.unwrap()
    }

    fn published(&self) -> Vec<String> {
        let published = self.published.lock().unwrap();
        let shown = published
            .iter()
            .map(|(topic, event)| format!("{topic} {} {}", event["id"], event["topic"]));
        shown.collect()
    }
}

fn message(id: &str) -> Message {
    Message {
        data: format!("{{\"id\":\"{id}\",\"topic\":\"\",\"pubsubname\":\"p\"}}").into(),
        ..Message::default()
    }
}

fn with(keys: &[&str]) -> Shelf {
    Shelf {
        keys: Mutex::new(keys.iter().map(|key| (*key).to_owned()).collect()),
        keeps: false,
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_publication_failed_is_published_once_when_it_comes_again() {
    let mut setup = Setup::new();
    let shelf = setup.store("s", "t", false, with(&["outbox-1"]));
    let (topic, handler) = setup.handler().await;
    assert_eq!(topic, "nsapptoutbox");
    *setup.refusals.lock().unwrap() = 1;
    handler.handle(message("outbox-1")).await.unwrap_err();
    assert!(shelf.keys.lock().unwrap().contains("outbox-1"));
    handler.handle(message("outbox-1")).await.unwrap();
    assert_eq!(setup.published(), ["t \"outbox-1\" \"t\""]);
    assert!(shelf.keys.lock().unwrap().is_empty());
    // It was published, but the broker has not heard so.
    handler.handle(message("outbox-1")).await.unwrap_err();
    assert_eq!(setup.published().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_its_transaction_is_rejected_or_dropped_but_never_published() {
    for (discard, taken) in [(false, false), (true, true)] {
        let mut setup = Setup::new();
        setup.store("s", "t", discard, Shelf::default());
        let (_, handler) = setup.handler().await;
        let handled = handler.handle(message("outbox-1")).await;
        assert_eq!(handled.is_ok(), taken);
        assert!(setup.published().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_failed_transactions_do_not_delay_others() {
    let mut setup = Setup::new();
    let shelf = setup.store("s", "t", false, Shelf::default());
    let (_, handler) = setup.handler().await;
    let begun = Instant::now();
    setup.outbox.absent.add("outbox-1", begun);
    handler.handle(message("outbox-1")).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1));
    // One that this process knows nothing of is waited for, but only the first time.
    handler.handle(message("outbox-2")).await.unwrap_err();
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(5));
    handler.handle(message("outbox-2")).await.unwrap_err();
    assert!(begun.elapsed() < waited + Duration::from_secs(1));
    // The transaction took place after all.
    shelf.keys.lock().unwrap().insert("outbox-1".to_owned());
    handler.handle(message("outbox-1")).await.unwrap();
    assert_eq!(setup.published(), ["t \"outbox-1\" \"t\""]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_took_place_without_an_answer_has_its_event() {
    let mut setup = Setup::new();
    let shelf = setup.store("s", "t", false, Shelf::default());
    let (_, handler) = setup.handler().await;
    // The store has timed out, and writes what it was asked to a second later.
    let in_doubt = Instant::now() + Duration::from_secs(2);
    setup.outbox.absent.add("outbox-1", in_doubt);
    let transaction = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shelf.keys.lock().unwrap().insert("outbox-1".to_owned());
    };
    let (handled, ()) = tokio::join!(handler.handle(message("outbox-1")), transaction);
    handled.unwrap();
    assert_eq!(setup.published(), ["t \"outbox-1\" \"t\""]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_ends_late_is_waited_for() {
    let mut setup = Setup::new();
    let shelf = setup.store("s", "t", true, Shelf::default());
    let (_, handler) = setup.handler().await;
    let transaction = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        shelf.keys.lock().unwrap().insert("outbox-1".to_owned());
    };
    let (handled, ()) = tokio::join!(handler.handle(message("outbox-1")), transaction);
    handled.unwrap();
    assert_eq!(setup.published().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_marker_stays_is_acknowledged() {
    let mut setup = Setup::new();
    let mut shelf = with(&["outbox-1"]);
    shelf.keeps = true;
    setup.store("s", "t", false, shelf);
    let (_, handler) = setup.handler().await;
    handler.handle(message("outbox-1")).await.unwrap();
    assert_eq!(setup.published().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_stores_share_a_topic_and_others_have_their_own() {
    let mut setup = Setup::new();
    setup.store("one", "t", false, with(&["outbox-1"]));
    setup.store("two", "t", false, with(&["outbox-2"]));
    setup.store("three", "u", false, with(&["outbox-3"]));
    setup.relay.follow(false);
    let mut handlers = HashMap::new();
    for _ in 0..2 {
        let (topic, handler) = setup.subscribed.recv().await.unwrap();
        handlers.insert(topic, handler);
    }
    for id in ["outbox-1", "outbox-2"] {
        handlers["nsapptoutbox"].handle(message(id)).await.unwrap();
    }
    handlers["nsappuoutbox"]
        .handle(message("outbox-3"))
        .await
        .unwrap();
    let expected = [
        "t \"outbox-1\" \"t\"",
        "t \"outbox-2\" \"t\"",
        "u \"outbox-3\" \"u\"",
    ];
    assert_eq!(setup.published(), expected);
    // Nothing changed, so nothing is subscribed to again.
    setup.relay.follow(false);
    tokio::task::yield_now().await;
    assert!(setup.subscribed.try_recv().is_err());
}

#[tokio::test]
async fn a_broker_that_comes_later_is_subscribed_to() {
    let mut setup = Setup::new();
    let broker = setup.brokers.remove("p").unwrap();
    setup.store("s", "t", false, Shelf::default());
    setup.relay.follow(false);
    assert!(setup.subscribed.try_recv().is_err());
    setup.brokers.insert("p", broker);
    assert_eq!(setup.handler().await.0, "nsapptoutbox");
}
