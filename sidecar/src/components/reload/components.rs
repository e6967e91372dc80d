//! Components that change while the sidecar runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use outrider_crds::Component;
use tokio::time::Instant;

use super::SCOPE;
use super::follow::Follow;
use crate::api::pubsub::subscribe::Subscriber;
use crate::components::operator::{Change, Error, Operator};
use crate::components::start::{Brought, Starter, secret_stores_first};

/// Pauses between two tries to start a component.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the components in use as the source wants them.
pub struct Components {
    starter: Arc<Starter>,
    subscriber: Subscriber,
    /// What is in use, as it was read, and what cannot be used as it is.
    loaded: HashMap<String, Component>,
    failed: HashMap<String, Failed>,
    /// Time between full comparisons.
    pub interval: Duration,
}

/// A component that could not be started, by what it was to be.
struct Failed {
    component: Component,
    pause: Duration,
    again: Instant,
}

impl Failed {
    fn new(component: Component, pause: Duration) -> Self {
        let again = Instant::now() + pause;
        Self {
            component,
            pause,
            again,
        }
    }
}

impl Components {
    /// `listed` are all that there were at the start, `failed` those of them
    /// that are not in use.
    pub fn new(
        starter: Arc<Starter>,
        subscriber: Subscriber,
        listed: Vec<Component>,
        failed: Vec<Component>,
        interval: Duration,
    ) -> Self {
        let by_name = |component: Component| (component.metadata.name.clone(), component);
        let mut loaded: HashMap<_, _> = listed.into_iter().map(by_name).collect();
        let failed = failed.into_iter().map(|component| {
            let name = component.metadata.name.clone();
            loaded.remove(&name);
            (name, Failed::new(component, FIRST_PAUSE))
        });
        let failed = failed.collect();
        Self {
            starter,
            subscriber,
            loaded,
            failed,
            interval,
        }
    }

    /// What is listed, with what the sidecar itself has put there.
    fn with_builtin(&self, mut listed: Vec<Component>) -> Vec<Component> {
        let failed = || self.failed.get(BUILTIN_STORE).map(|f| &f.component);
        if let Some(builtin) = self.loaded.get(BUILTIN_STORE).or_else(failed)
            && !listed.iter().any(|c| c.metadata.name == BUILTIN_STORE)
        {
            listed.push(builtin.clone());
        }
        listed
    }

    /// All that is wanted, as far as it was read.
    fn wanted(&self) -> HashMap<String, Component> {
        let mut wanted = self.loaded.clone();
        for (name, failed) in &self.failed {
            wanted.insert(name.clone(), failed.component.clone());
        }
        wanted
    }

    /// Deletes, updates and adds until what is in use is what is wanted.
    pub async fn apply(&mut self, mut wanted: Vec<Component>) {
        let names: HashSet<&String> = wanted.iter().map(|c| &c.metadata.name).collect();
        self.failed.retain(|name, _| names.contains(name));
        let gone = self.loaded.extract_if(|name, _| !names.contains(name));
        for (name, component) in gone {
            tracing::info!(target: SCOPE, "Component deleted: {}", component.log_name());
            self.starter.remove(&name);
        }
        self.starter
            .live
            .failures()
            .retain(|name, _| names.contains(name));
        // Subscriptions of a broker that is gone end.
        self.subscriber.refresh().await;
        secret_stores_first(&mut wanted);
        for component in wanted {
            let name = &component.metadata.name;
            match self.failed.get(name) {
                // It is tried again when it is time.
                Some(failed) if same(&failed.component, &component) => continue,
                Some(_) => {
                    self.failed.remove(name);
                    self.starter.live.recovered(name);
                }
                None => {}
            }
            if self.loaded.get(name).is_some_and(|b| same(b, &component)) {
                continue;
            }
            tracing::info!(target: SCOPE, "Adding Component for processing: {}", component.log_name());
            self.bring(component, FIRST_PAUSE).await;
        }
    }

    /// Brings a component into use, and with a secret store those that waited
    /// for it. One that fails leaves the one before in use; it is tried again.
    async fn bring(&mut self, component: Component, pause: Duration) {
        let mut next = vec![(component, pause)];
        while let Some((component, pause)) = next.pop() {
            let (name, shown) = (component.metadata.name.clone(), component.log_name());
            match self.starter.bring(&component).await {
                Ok(brought) => {
                    if brought == Brought::InUse {
                        tracing::info!(target: SCOPE, "Component updated: {shown}");
                        self.subscriber.refresh().await;
                        let waiting = self.starter.waiting_for(&component);
                        next.extend(waiting.into_iter().map(|c| (c, FIRST_PAUSE)));
                    }
                    self.failed.remove(&name);
                    self.loaded.insert(name, component);
                }
                Err(text) => {
                    let meanwhile = match self.starter.live.has(&name) {
                        true => "the one before stays in use",
                        false => "there is none of its name",
                    };
                    tracing::error!(target: SCOPE, "Component {shown} cannot be used, {meanwhile} until it is corrected; it is tried again in {}s: {text}", pause.as_secs());
                    self.failed.insert(name, Failed::new(component, pause));
                }
            }
        }
    }

    /// Ends when it is time to try a component again.
    pub async fn until_retry(&self) {
        match self.failed.values().map(|failed| failed.again).min() {
            Some(again) => tokio::time::sleep_until(again).await,
            None => std::future::pending().await,
        }
    }

    /// Tries those again whose time has come.
    pub async fn retry(&mut self) {
        let now = Instant::now();
        let due = self.failed.extract_if(|_, failed| failed.again <= now);
        let due: Vec<Failed> = due.map(|(_, failed)| failed).collect();
        for failed in due {
            let pause = (failed.pause * 2).min(LONGEST_PAUSE);
            self.bring(failed.component, pause).await;
        }
    }
}

impl Follow for Components {
    const WATCHED: &'static str = "Component updates";

    async fn stream(&mut self, operator: &Operator, alive: &mut bool) -> Result<(), Error> {
        let mut events = operator.component_events().await?;
        let listed = operator.components().await?;
        *alive = true;
        self.apply(self.with_builtin(listed)).await;
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        loop {
            let mut wanted = self.wanted();
            tokio::select! {
                change = events.next() => match change? {
                    Change::Set(component) if operator.sees(&component) => {
                        wanted.insert(component.metadata.name.clone(), component);
                    }
                    Change::Set(component) | Change::Deleted(component) => {
                        wanted.remove(&component.metadata.name);
                    }
                },
                () = self.until_retry() => {
                    self.retry().await;
                    continue;
                }
                _ = ticks.tick() => {
                    tracing::debug!(target: SCOPE, "Running scheduled Component reconcile");
                    let listed = operator.components().await?;
                    wanted = self.with_builtin(listed).into_iter().map(|c| (c.metadata.name.clone(), c)).collect();
                }
            }
            self.apply(wanted.into_values().collect()).await;
        }
    }
}

/// The secret store that a sidecar in Kubernetes has by itself.
pub const BUILTIN_STORE: &str = "kubernetes";

/// Metadata besides the name says nothing about the component itself.
fn same(a: &Component, b: &Component) -> bool {
    a.spec == b.spec && a.auth == b.auth && a.scopes == b.scopes
}
