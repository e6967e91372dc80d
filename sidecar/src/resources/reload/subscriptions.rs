//! Subscription resources that change while the sidecar runs.

use std::sync::Arc;

use outrider_crds::Subscription;

use super::SCOPE;
use super::follow::Follow;
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::components::status::Table;
use crate::resources::operator::{Error, Operator};

/// Keeps the subscriptions of resources as the source wants them.
pub struct Subscriptions {
    pub subscriber: Subscriber,
    /// What is in use.
    pub loaded: Vec<Subscription>,
    pub status: Arc<Table>,
}

impl Subscriptions {
    /// Uses what there is. Returns the names of those that make no sense.
    pub fn declare(&self) -> Vec<String> {
        let refused = self.subscriber.declare(self.loaded.clone());
        let exists = |name: &str| self.loaded.iter().any(|l| l.metadata.name == name);
        self.status.retain::<Subscription>(exists);
        for resource in &self.loaded {
            let name = &resource.metadata.name;
            match refused.get(name) {
                Some(why) => self.status.failed::<Subscription>(name, why),
                None => self.status.running::<Subscription>(name),
            }
        }
        refused.into_keys().collect()
    }

    /// What is unchanged keeps its place before what is new.
    pub fn apply(&mut self, wanted: Vec<Subscription>) {
        let in_use = self.loaded.len();
        let same = |a: &Subscription, b: &Subscription| {
            a.metadata.name == b.metadata.name && a.spec == b.spec
        };
        self.loaded
            .retain(|loaded| wanted.iter().any(|w| same(w, loaded)));
        let changed: Vec<Subscription> = wanted
            .into_iter()
            .filter(|w| !self.loaded.iter().any(|loaded| same(w, loaded)))
            .collect();
        if changed.is_empty() && self.loaded.len() == in_use {
            return;
        }
        let names: Vec<String> = changed.iter().map(|c| c.metadata.name.clone()).collect();
        for name in &names {
            tracing::info!(target: SCOPE, "Adding Subscription for processing: {name}");
        }
        self.loaded.extend(changed);
        let refused = self.declare();
        for name in names.iter().filter(|name| !refused.contains(name)) {
            tracing::info!(target: SCOPE, "Subscription updated: {name}");
        }
    }
}

impl Follow for Subscriptions {
    const WATCHED: &'static str = "Subscription updates";

    async fn stream(&mut self, operator: &Operator, alive: &mut bool) -> Result<(), Error> {
        let mut events = operator.subscription_events().await?;
        let mut wanted = operator.subscriptions().await?;
        *alive = true;
        loop {
            self.apply(wanted.clone());
            let change = events.next().await?;
            change.amend(&mut wanted, |subscription| operator.sees(subscription));
        }
    }
}
