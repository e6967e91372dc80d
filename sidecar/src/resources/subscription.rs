//! Subscriptions.

use std::ops::ControlFlow;
use std::sync::Arc;

use outrider_crds::Subscription;
use outrider_proto::operator::v1 as wire;
use prost::Message as _;

use super::follow::{Apply, Restart};
use super::kind::{Stored, Watch};
use super::operator::{Error, Events, Operator};
use super::{Resources, SCOPE};
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::components::status::Table;

pub struct Subscriptions;

impl Watch for Subscriptions {
    type Resource = Subscription;
    type Event = wire::SubscriptionUpdateEvent;

    const UPDATES: &'static str = "Subscription updates";

    fn same(a: &Subscription, b: &Subscription) -> bool {
        a.spec == b.spec
    }

    async fn list(&self, operator: &Operator) -> Result<Vec<Subscription>, Error> {
        let namespace = operator.namespace();
        let request = wire::ListSubscriptionsRequest { namespace };
        let (sent, mut client) = (request.encoded_len(), operator.client());
        let listing = client.list_subscriptions_v2(request);
        let answer = operator.timed("ListSubscriptionsV2", sent, listing).await?;
        Ok(operator.scoped(&answer.subscriptions))
    }

    async fn open(&self, operator: &Operator) -> Result<Events<Self::Event>, Error> {
        let namespace = operator.namespace();
        let request = wire::SubscriptionUpdateRequest { namespace };
        let mut client = operator.client();
        Events::open(async move { client.subscription_update(request).await }).await
    }
}

impl Stored for Subscriptions {
    fn take(loaded: &mut Resources) -> Vec<Subscription> {
        std::mem::take(&mut loaded.subscriptions)
    }
}

/// Keeps the subscriptions of resources as they are wanted.
pub struct Applier {
    subscriber: Subscriber,
    status: Arc<Table>,
    /// What is in use.
    in_use: Vec<Subscription>,
}

impl Applier {
    /// Uses what there is at the start.
    pub fn new(subscriber: Subscriber, status: Arc<Table>, in_use: Vec<Subscription>) -> Self {
        let applier = Self {
            subscriber,
            status,
            in_use,
        };
        applier.declare();
        applier
    }

    /// Returns the names of those that make no sense.
    fn declare(&self) -> Vec<String> {
        let refused = self.subscriber.declare(self.in_use.clone());
        for resource in &self.in_use {
            let name = &resource.metadata.name;
            match refused.get(name) {
                Some(why) => self.status.failed::<Subscription>(name, why),
                None => self.status.running::<Subscription>(name),
            }
        }
        refused.into_keys().collect()
    }
}

impl Apply<Subscriptions> for Applier {
    async fn apply(&mut self, wanted: Vec<Subscription>) -> ControlFlow<Restart> {
        let before = self.in_use.len();
        let changed = take_in(&mut self.in_use, wanted);
        if changed.is_empty() && self.in_use.len() == before {
            return ControlFlow::Continue(());
        }
        for name in &changed {
            tracing::info!(target: SCOPE, "Adding Subscription for processing: {name}");
        }
        let refused = self.declare();
        for name in changed.iter().filter(|name| !refused.contains(name)) {
            tracing::info!(target: SCOPE, "Subscription updated: {name}");
        }
        ControlFlow::Continue(())
    }
}

/// Makes what is in use what is wanted. What is unchanged keeps its place
/// before what is new or changed, whose names are returned.
fn take_in(in_use: &mut Vec<Subscription>, wanted: Vec<Subscription>) -> Vec<String> {
    let same = |a: &Subscription, b: &Subscription| {
        a.metadata.name == b.metadata.name && Subscriptions::same(a, b)
    };
    in_use.retain(|loaded| wanted.iter().any(|w| same(w, loaded)));
    let is_new = |w: &Subscription| !in_use.iter().any(|loaded| same(w, loaded));
    let changed: Vec<Subscription> = wanted.into_iter().filter(is_new).collect();
    let names = changed.iter().map(|c| c.metadata.name.clone()).collect();
    in_use.extend(changed);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unchanged_keeps_its_place_before_what_is_changed() {
        let subscription = |text: &&str| {
            let (name, topic) = text.split_once(' ').unwrap();
            let mut subscription = Subscription::default();
            subscription.metadata.name = name.to_owned();
            subscription.spec.topic = topic.to_owned();
            subscription
        };
        let all =
            |texts: &[&str]| -> Vec<Subscription> { texts.iter().map(subscription).collect() };
        let mut in_use = all(&["a t", "b t", "c t"]);
        let changed = take_in(&mut in_use, all(&["d t", "b u", "c t", "a t"]));
        assert_eq!(changed, ["d", "b"]);
        assert_eq!(in_use, all(&["a t", "c t", "d t", "b u"]));
        assert!(take_in(&mut in_use, all(&["c t"])).is_empty());
        assert_eq!(in_use, all(&["c t"]));
    }
}
