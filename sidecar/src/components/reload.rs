//! Resources that change while the sidecar runs.
//! <https://docs.dapr.io/operations/components/component-updates/>

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use outrider_crds::configuration::Spec;
use outrider_crds::{Component, HttpEndpoint, Subscription};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::disk;
use super::operator::{Change, Operator};
use super::policies::Policies;
use super::start::Starter;
use crate::api::pubsub::subscribe::Subscriber;

const SCOPE: &str = "dapr.runtime.hotreload";
/// Events of one change of a file come in a burst.
const DEBOUNCE: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a change demands of the process.
#[derive(Debug)]
pub enum Demand {
    /// A resource that only a fresh start takes in has changed.
    Restart,
    /// A resource failed that the sidecar must not go on without.
    Fatal(String),
}

/// Keeps the components in use as the source wants them.
pub struct Reload {
    pub starter: Arc<Starter>,
    /// What is in use, as it was read.
    pub loaded: HashMap<String, Component>,
    pub subscriptions: Subscriptions,
    pub endpoints: Endpoints,
    pub policies: Policies,
    pub demands: mpsc::UnboundedSender<Demand>,
    pub stopping: CancellationToken,
    /// Time between full comparisons.
    pub interval: Duration,
}

impl Reload {
    /// Follows the folders of resource files.
    pub async fn follow_files(
        mut self,
        folders: Vec<PathBuf>,
        app_id: String,
        namespace: Option<String>,
    ) {
        tracing::info!(target: SCOPE, "Watching directories: [{}]", folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "));
        tracing::info!(target: SCOPE, "Starting to watch Component updates");
        tracing::info!(target: SCOPE, "Starting to watch Subscription updates");
        tracing::info!(target: SCOPE, "Starting to watch HTTPEndpoint updates for SIGHUP reload");
        tracing::info!(target: SCOPE, "Starting to watch Resiliency updates");
        let (told, mut events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                let _ = told.send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(target: SCOPE, "resource files cannot be watched, changes are seen every {}s only: {error}", self.interval.as_secs());
                return self
                    .compare_now_and_then(&folders, &app_id, namespace.as_deref())
                    .await;
            }
        };
        for folder in &folders {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::error!(target: SCOPE, "failed to watch {}: {error}", folder.display());
            }
        }
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + self.interval, self.interval);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                event = events.recv() => if event.is_none() { return },
                _ = ticks.tick() => tracing::debug!(target: SCOPE, "Running scheduled Component reconcile"),
            }
            tokio::time::sleep(DEBOUNCE).await;
            while events.try_recv().is_ok() {}
            if !self.compare(&folders, &app_id, namespace.as_deref()).await {
                return;
            }
        }
    }

    async fn compare_now_and_then(
        mut self,
        folders: &[PathBuf],
        app_id: &str,
        namespace: Option<&str>,
    ) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            if !self.compare(folders, app_id, namespace).await {
                return;
            }
        }
    }

    /// Whether to go on.
    async fn compare(
        &mut self,
        folders: &[PathBuf],
        app_id: &str,
        namespace: Option<&str>,
    ) -> bool {
        match disk::load(folders, disk::Filter { app_id, namespace }) {
            Ok(resources) => {
                if let Some(change) = self.endpoints.change(&resources.http_endpoints) {
                    change.tell();
                    self.demand(Demand::Restart);
                    return false;
                }
                self.policies.apply(resources.resiliencies);
                let goes_on = self.apply(resources.components).await;
                self.subscriptions.apply(resources.subscriptions);
                goes_on
            }
            Err(error @ disk::Error::Duplicates(_)) => {
                self.demand(Demand::Fatal(format!(
                    "failed to load resources from disk: {error}"
                )));
                false
            }
            Err(error) => {
                tracing::error!(target: SCOPE, "failed to load resources from disk: {error}");
                true
            }
        }
    }

    /// Follows the operator. A broken stream is taken up again, and what was
    /// missed is made good by a full comparison.
    pub async fn follow_operator(mut self, operator: Operator) {
        tracing::info!(target: SCOPE, "Starting to watch Component updates");
        let mut pause = FIRST_PAUSE;
        let stopping = self.stopping.clone();
        loop {
            let lived = tokio::select! {
                () = stopping.cancelled() => return,
                lived = self.stream(&operator) => lived,
            };
            match lived {
                Ok(()) => return,
                Err((error, worked)) => {
                    if worked {
                        pause = FIRST_PAUSE;
                    }
                    tracing::warn!(target: SCOPE, "lost the stream of Component updates, trying again in {}ms: {error}", pause.as_millis());
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Ends well when the process has to end anyway; else with the error, and
    /// whether the stream had worked before.
    async fn stream(&mut self, operator: &Operator) -> Result<(), (super::operator::Error, bool)> {
        let mut events = operator.component_events().await.map_err(|e| (e, false))?;
        let listed = operator.components().await.map_err(|e| (e, false))?;
        if !self.apply(self.with_builtin(listed)).await {
            return Ok(());
        }
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + self.interval, self.interval);
        loop {
            let mut wanted = self.loaded.clone();
            tokio::select! {
                change = events.next() => match change.map_err(|e| (e, true))? {
                    Change::Set(component) if operator.sees(&component) => {
                        wanted.insert(component.metadata.name.clone(), component);
                    }
                    Change::Set(component) | Change::Deleted(component) => {
                        wanted.remove(&component.metadata.name);
                    }
                },
                _ = ticks.tick() => {
                    tracing::debug!(target: SCOPE, "Running scheduled Component reconcile");
                    let listed = operator.components().await.map_err(|e| (e, true))?;
                    wanted = self.with_builtin(listed).into_iter().map(|c| (c.metadata.name.clone(), c)).collect();
                }
            }
            if !self.apply(wanted.into_values().collect()).await {
                return Ok(());
            }
        }
    }

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
    async fn apply(&mut self, wanted: Vec<Component>) -> bool {
        let goes_on = self.change(wanted).await;
        self.subscriptions.subscriber.refresh().await;
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
                self.demand(Demand::Fatal(text));
                return false;
            }
            tracing::info!(target: SCOPE, "Component updated: {shown}");
        }
        true
    }

    fn demand(&self, demand: Demand) {
        // Nobody listens any more when the process is already ending.
        let _ = self.demands.send(demand);
    }
}

/// Keeps the subscriptions of resources as the source wants them.
#[derive(Clone)]
pub struct Subscriptions {
    pub subscriber: Subscriber,
    /// What is in use.
    pub loaded: Vec<Subscription>,
}

impl Subscriptions {
    /// What is unchanged keeps its place before what is new.
    fn apply(&mut self, wanted: Vec<Subscription>) {
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
        self.subscriber.declare(self.loaded.clone());
        for name in &names {
            tracing::info!(target: SCOPE, "Subscription updated: {name}");
        }
    }

    /// Follows the operator: whatever it tells, everything is listed again.
    pub async fn follow_operator(mut self, operator: Operator, stopping: CancellationToken) {
        tracing::info!(target: SCOPE, "Starting to watch Subscription updates");
        let mut pause = FIRST_PAUSE;
        loop {
            let following = async {
                let mut events = operator.subscription_events().await?;
                loop {
                    self.apply(operator.subscriptions().await?);
                    pause = FIRST_PAUSE;
                    events.changed().await?;
                }
            };
            let ended: Result<(), super::operator::Error> = tokio::select! {
                () = stopping.cancelled() => return,
                ended = following => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(target: SCOPE, "lost the stream of Subscription updates, trying again in {}ms: {error}", pause.as_millis());
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }
}

/// The HTTPEndpoints in use, as they were read. A change takes a fresh start.
#[derive(Clone)]
pub struct Endpoints(pub Vec<HttpEndpoint>);

/// A resource that only a fresh start takes in.
struct Changed {
    what: &'static str,
    name: String,
}

impl Changed {
    fn tell(&self) {
        let Self { what, name } = self;
        tracing::info!(target: SCOPE, "Received HTTPEndpoint {what} event: {name} - triggering SIGHUP reload");
    }
}

impl Endpoints {
    /// The first difference to what is wanted.
    fn change(&self, wanted: &[HttpEndpoint]) -> Option<Changed> {
        let named = |all: &[HttpEndpoint], name: &str| {
            let mut all = all.iter();
            all.find(|endpoint| endpoint.metadata.name == name).cloned()
        };
        let changed = |what, endpoint: &HttpEndpoint| Changed {
            what,
            name: format!("{} ({})", endpoint.metadata.name, endpoint.spec.base_url),
        };
        let gone = self
            .0
            .iter()
            .find(|endpoint| named(wanted, &endpoint.metadata.name).is_none());
        if let Some(endpoint) = gone {
            return Some(changed("DELETED", endpoint));
        }
        wanted
            .iter()
            .find_map(|endpoint| match named(&self.0, &endpoint.metadata.name) {
                None => Some(changed("CREATED", endpoint)),
                Some(before) => {
                    let same = before.spec == endpoint.spec && before.auth == endpoint.auth;
                    (!same).then(|| changed("UPDATED", endpoint))
                }
            })
    }

    /// Follows the operator until a change demands a restart.
    pub async fn follow_operator(
        self,
        operator: Operator,
        demands: mpsc::UnboundedSender<Demand>,
        stopping: CancellationToken,
    ) {
        tracing::info!(target: SCOPE, "Starting to watch HTTPEndpoint updates for SIGHUP reload");
        let mut pause = FIRST_PAUSE;
        loop {
            let following = async {
                let mut events = operator.http_endpoint_events().await?;
                let mut wanted = operator.http_endpoints().await?;
                loop {
                    if let Some(changed) = self.change(&wanted) {
                        return Ok::<_, super::operator::Error>(changed);
                    }
                    pause = FIRST_PAUSE;
                    let change = events.next().await?;
                    let (Change::Set(endpoint) | Change::Deleted(endpoint)) = &change;
                    wanted.retain(|w| w.metadata.name != endpoint.metadata.name);
                    if let Change::Set(endpoint) = change
                        && operator.sees(&endpoint)
                    {
                        wanted.push(endpoint);
                    }
                }
            };
            let ended = tokio::select! {
                () = stopping.cancelled() => return,
                ended = following => ended,
            };
            match ended {
                Ok(changed) => {
                    changed.tell();
                    // Nobody listens any more when the process is already ending.
                    let _ = demands.send(Demand::Restart);
                    return;
                }
                Err(error) => {
                    tracing::debug!(target: SCOPE, "lost the stream of HTTPEndpoint updates, trying again in {}ms: {error}", pause.as_millis());
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
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

/// Demands a restart when the Configuration in use changes.
pub async fn follow_configuration(
    operator: Operator,
    name: String,
    current: Spec,
    demands: mpsc::UnboundedSender<Demand>,
    stopping: CancellationToken,
) {
    tracing::info!(target: SCOPE, "Starting to watch Configuration updates for SIGHUP reload");
    let mut pause = FIRST_PAUSE;
    loop {
        let watching = async {
            let mut events = operator.configuration_events().await?;
            loop {
                if let Change::Set(changed) = events.next().await?
                    && changed.metadata.name == name
                    && changed.spec != current
                {
                    return Ok::<_, super::operator::Error>(());
                }
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            ended = watching => match ended {
                Ok(()) => {
                    tracing::info!(target: SCOPE, "Received Configuration UPDATED event: {name} - triggering SIGHUP reload");
                    let _ = demands.send(Demand::Restart);
                    return;
                }
                Err(error) => tracing::debug!(target: SCOPE, "lost the stream of Configuration updates: {error}"),
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, base_url: &str, label: &str) -> HttpEndpoint {
        let mut endpoint = HttpEndpoint::default();
        endpoint.metadata.name = name.to_owned();
        endpoint.metadata.namespace = label.to_owned();
        endpoint.spec.base_url = base_url.to_owned();
        endpoint
    }

    #[test]
    fn changes_of_endpoints() {
        let (a, b) = (endpoint("a", "http://a", ""), endpoint("b", "http://b", ""));
        let endpoints = Endpoints(vec![a.clone(), b.clone()]);
        let change = |wanted: &[HttpEndpoint]| endpoints.change(wanted).map(|c| (c.what, c.name));
        assert_eq!(
            change(&[b.clone(), endpoint("a", "http://a", "else")]),
            None
        );
        for (wanted, what, name) in [
            (vec![a.clone()], "DELETED", "b (http://b)"),
            (
                vec![a.clone(), endpoint("b", "http://c", "")],
                "UPDATED",
                "b (http://c)",
            ),
            (
                vec![a, b, endpoint("c", "http://c", "")],
                "CREATED",
                "c (http://c)",
            ),
        ] {
            assert_eq!(change(&wanted), Some((what, name.to_owned())));
        }
    }
}
