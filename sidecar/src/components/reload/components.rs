//! Components that change while the sidecar runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_crds::Component;
use tokio::sync::mpsc;

use super::follow::Follow;
use super::{Demand, SCOPE};
use crate::api::pubsub::subscribe::Subscriber;
use crate::components::operator::{Change, Error, Operator};
use crate::components::start::Starter;

/// Keeps the components in use as the source wants them.
pub struct Components {
    pub starter: Arc<Starter>,
    pub subscriber: Subscriber,
    /// What is in use, as it was read.
    pub loaded: HashMap<String, Component>,
    pub demands: mpsc::UnboundedSender<Demand>,
    /// Time between full comparisons.
    pub interval: Duration,
}

impl Components {
    /// What is listed, with what the sidecar itself has put there.
    fn with_builtin(&self, mut listed: Vec<Component>) -> Vec<Component> {
        if let Some(builtin) = self.loaded.get(BUILTIN_STORE)
            && !listed.iter().any(|c| c.metadata.name == BUILTIN_STORE)
        {
            listed.push(builtin.clone());
        }
        listed
    }

    /// Deletes, updates and adds until what is in use is what is wanted.
    /// Returns false if the process has to end.
    pub async fn apply(&mut self, wanted: Vec<Component>) -> bool {
        let goes_on = self.change(wanted).await;
        self.subscriber.refresh().await;
        goes_on
    }

    async fn change(&mut self, wanted: Vec<Component>) -> bool {
        let names: Vec<String> = wanted.iter().map(|c| c.metadata.name.clone()).collect();
        let gone: Vec<String> = self
            .loaded
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(component) = self.loaded.remove(&name) {
                tracing::info!(target: SCOPE, "Component deleted: {}", component.log_name());
                self.starter.remove(&name).await;
            }
        }
        for component in wanted {
            let name = component.metadata.name.clone();
            let before = self.loaded.get(&name);
            if before.is_some_and(|b| same(b, &component)) {
                continue;
            }
            if before.is_some() {
                tracing::info!(target: SCOPE, "Closing existing Component to reload: {}", component.log_name());
                self.starter.remove(&name).await;
            }
            tracing::info!(target: SCOPE, "Adding Component for processing: {}", component.log_name());
            self.loaded.insert(name, component.clone());
            let shown = component.log_name();
            if let Err(text) = self.starter.add(component).await {
                // Nobody listens any more when the process is already ending.
                let _ = self.demands.send(Demand::Fatal(text));
                return false;
            }
            tracing::info!(target: SCOPE, "Component updated: {shown}");
        }
        true
    }
}

impl Follow for Components {
    const WATCHED: &'static str = "Component updates";

    /// Ends when the process has to end.
    async fn stream(&mut self, operator: &Operator, alive: &mut bool) -> Result<(), Error> {
        let mut events = operator.component_events().await?;
        let listed = operator.components().await?;
        *alive = true;
        if !self.apply(self.with_builtin(listed)).await {
            return Ok(());
        }
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + self.interval, self.interval);
        loop {
            let mut wanted = self.loaded.clone();
            tokio::select! {
                change = events.next() => match change? {
                    Change::Set(component) if operator.sees(&component) => {
                        wanted.insert(component.metadata.name.clone(), component);
                    }
                    Change::Set(component) | Change::Deleted(component) => {
                        wanted.remove(&component.metadata.name);
                    }
                },
                _ = ticks.tick() => {
                    tracing::debug!(target: SCOPE, "Running scheduled Component reconcile");
                    let listed = operator.components().await?;
                    wanted = self.with_builtin(listed).into_iter().map(|c| (c.metadata.name.clone(), c)).collect();
                }
            }
            if !self.apply(wanted.into_values().collect()).await {
                return Ok(());
            }
        }
    }
}

/// The secret store that a sidecar in Kubernetes has by itself.
pub const BUILTIN_STORE: &str = "kubernetes";

/// Metadata besides the name says nothing about the component itself.
fn same(a: &Component, b: &Component) -> bool {
    a.spec == b.spec && a.auth == b.auth && a.scopes == b.scopes
}
