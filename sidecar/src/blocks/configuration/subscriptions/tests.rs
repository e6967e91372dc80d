use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use outrider_components::configuration::{self as component, Item, Items};
use outrider_resiliency::{Block, Resiliency};

use super::*;
use crate::components::instance::{Description, Instance, Policies};

/// Counts the subscriptions that it has, and tells each of them its name once.
#[derive(Default)]
struct Fake {
    name: &'static str,
    refuses: bool,
    open: Arc<AtomicUsize>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl component::Store for Fake {
    async fn get(&self, _: &Request) -> Result<Items, Cause> {
        Ok(Items::new())
    }

    async fn subscribe(
        &self,
        _: &Request,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Cause> {
        if self.refuses {
            return Err(Cause::invalid("no"));
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(self.open.clone());
        let mut subscription = Subscription::default();
        let stopping = subscription.stopping();
        let item = Item {
            value: self.name.to_owned(),
            ..Item::default()
        };
        subscription.spawn(async move {
            let _counted = counted;
            handler.handle(Items::from([("k".to_owned(), item)])).await;
            stopping.cancelled().await;
        });
        Ok(subscription)
    }
}

fn store(name: &'static str, refuses: bool) -> (Arc<Store>, Arc<AtomicUsize>) {
    let fake = Fake {
        name,
        refuses,
        ..Fake::default()
    };
    let open = fake.open.clone();
    let inner: Arc<dyn component::Store> = Arc::new(fake);
    let description = Description {
        name: "s".to_owned(),
        component_type: "configuration.fake".to_owned(),
        version: "v1".to_owned(),
        capabilities: Vec::new(),
    };
    let policies = Policies {
        resiliency: Resiliency::default(),
        block: Block::Configuration,
    };
    let instance = Instance::new(description, inner, policies, Default::default());
    (Arc::new(instance), open)
}

struct Seen(tokio::sync::mpsc::UnboundedSender<String>);

#[async_trait]
impl Handler for Seen {
    async fn handle(&self, items: Items) {
        let _ = self.0.send(items["k"].value.clone());
    }
}

struct Bench {
    subscriptions: Subscriptions,
    stores: Arc<Map<Store>>,
    changes: watch::Sender<()>,
    seen: tokio::sync::mpsc::UnboundedReceiver<String>,
    handler: Arc<Seen>,
}

fn bench() -> Bench {
    let stores = Arc::<Map<Store>>::default();
    let (sender, seen) = tokio::sync::mpsc::unbounded_channel();
    Bench {
        subscriptions: Subscriptions::new(stores.clone(), Tasks::new()),
        stores,
        changes: watch::Sender::new(()),
        seen,
        handler: Arc::new(Seen(sender)),
    }
}

impl Bench {
    async fn add(&self, id: &str, store: &Arc<Store>) -> Result<Ended, Cause> {
        let (place, ended) = place(id, "s");
        let handler = self.handler.clone();
        let added = self
            .subscriptions
            .add(place, store, Request::default(), handler);
        added.await.map(|()| ended)
    }
}

async fn closed(open: &AtomicUsize) {
    while open.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_subscription_is_ended_once_and_only_for_its_own_store() {
    let bench = bench();
    let (store, open) = store("one", false);
    bench.stores.insert("s", store.clone());
    let ended = bench.add("i", &store).await.unwrap();
    let end = |store| bench.subscriptions.end("i", store);
    assert_eq!(end(Some("other")), Err(NoSubscription));
    assert_eq!(open.load(Ordering::SeqCst), 1);
    assert_eq!(end(Some("s")), Ok(()));
    assert_eq!(ended.wait().await, None);
    closed(&open).await;
    assert_eq!(end(None), Err(NoSubscription));
}

#[tokio::test]
async fn a_store_that_is_replaced_hands_its_subscriptions_on() {
    let mut bench = bench();
    let (one, first) = store("one", false);
    bench.stores.insert("s", one.clone());
    let ended = bench.add("i", &one).await.unwrap();
    drop(one);
    assert_eq!(bench.seen.recv().await.as_deref(), Some("one"));
    let following = bench
        .subscriptions
        .clone()
        .follow(bench.changes.subscribe());
    let (two, second) = store("two", false);
    bench.stores.insert("s", two);
    let changes = bench.changes.clone();
    let watching = async {
        changes.send_replace(());
        assert_eq!(bench.seen.recv().await.as_deref(), Some("two"));
        closed(&first).await;
        assert_eq!(second.load(Ordering::SeqCst), 1);
        bench.stores.remove("s");
        changes.send_replace(());
        let why = ended.wait().await.expect("the client did not want it");
        assert!(why.contains("not in use any more"), "{why}");
        closed(&second).await;
    };
    tokio::select! {
        () = following => panic!("follows for ever"),
        () = watching => {}
    }
    assert_eq!(bench.subscriptions.end("i", None), Err(NoSubscription));
}

#[tokio::test]
async fn a_store_that_is_replaced_while_a_subscription_begins_is_left() {
    let mut bench = bench();
    let (one, first) = store("one", false);
    let (two, second) = store("two", false);
    bench.stores.insert("s", two);
    bench.add("i", &one).await.unwrap();
    closed(&first).await;
    assert_eq!(second.load(Ordering::SeqCst), 1);
    while bench.seen.recv().await.as_deref() != Some("two") {}
}

#[tokio::test]
async fn what_the_store_refuses_leaves_nothing_behind() {
    let bench = bench();
    let (store, _) = store("one", true);
    bench.stores.insert("s", store.clone());
    let error = bench.add("i", &store).await.err().expect("is refused");
    assert_eq!(error.to_string(), "no");
    assert_eq!(bench.subscriptions.0.table().by_id.len(), 0);
}

#[tokio::test]
async fn subscriptions_are_bounded_by_number_and_by_their_keys() {
    let bench = bench();
    let (store, open) = store("one", false);
    bench.stores.insert("s", store.clone());
    let large = Request {
        keys: vec!["k".repeat(MOST_BYTES)],
        ..Request::default()
    };
    let (large_place, _) = place("large", "s");
    let added = bench
        .subscriptions
        .add(large_place, &store, large, bench.handler.clone());
    let error = added.await.expect_err("is too large");
    assert!(error.to_string().starts_with("too many subscriptions"));
    for number in 0..MOST {
        bench.add(&number.to_string(), &store).await.unwrap();
    }
    let error = bench.add("more", &store).await.err().expect("is too much");
    assert!(error.to_string().starts_with("too many subscriptions"));
    bench.subscriptions.end("0", None).unwrap();
    bench.add("more", &store).await.unwrap();
    bench.subscriptions.finish().await;
    closed(&open).await;
    let error = bench.add("late", &store).await.err().expect("is over");
    assert_eq!(error.to_string(), STOPPING);
}
