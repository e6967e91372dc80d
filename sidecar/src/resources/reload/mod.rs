//! Resources that change while the sidecar runs.
//! <https://docs.dapr.io/operations/components/component-updates/>

use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use outrider_crds::configuration::Spec;
use outrider_host::Tasks;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::disk;
use crate::resources::operator::Operator;

pub mod components;
mod configuration;
mod endpoints;
mod follow;
pub mod policies;
mod reports;
mod subscriptions;

pub use components::Components;
pub use endpoints::Endpoints;
use follow::{Follow, follow};
pub use policies::Policies;
use reports::Reports;
pub use subscriptions::Subscriptions;

const SCOPE: &str = "dapr.runtime.hotreload";
/// Events of one change of a file come in a burst.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Demanded when a resource has changed that only a fresh start takes in.
#[derive(Debug)]
pub struct Restart;

/// Keeps the resources in use as their source wants them.
pub struct Reload {
    pub components: Components,
    pub subscriptions: Subscriptions,
    pub endpoints: Endpoints,
    pub policies: Policies,
    pub demands: mpsc::UnboundedSender<Restart>,
}

impl Reload {
    /// Follows the streams of the operator; `configuration` is the one in use,
    /// with its name.
    pub fn follow_operator(
        self,
        operator: &Operator,
        configuration: Option<(String, Spec)>,
        tasks: &Tasks,
    ) {
        let demands = self.demands;
        let mut components = self.components;
        components.reports = Some(Reports::new(operator.clone(), tasks.clone()));
        if let Some((name, current)) = configuration {
            let following = configuration::Following {
                name,
                current,
                demands: demands.clone(),
            };
            spawn(following, operator, tasks);
        }
        let endpoints = endpoints::Following {
            endpoints: self.endpoints,
            demands,
        };
        spawn(endpoints, operator, tasks);
        spawn(self.policies, operator, tasks);
        spawn(self.subscriptions, operator, tasks);
        spawn(components, operator, tasks);
    }

    /// Follows the folders of resource files.
    pub async fn follow_files(mut self, folders: disk::Folders, stopping: CancellationToken) {
        tracing::info!(target: SCOPE, "Watching directories: [{}]", folders.paths().iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "));
        tracing::info!(target: SCOPE, "Starting to watch Component updates");
        tracing::info!(target: SCOPE, "Starting to watch Subscription updates");
        tracing::info!(target: SCOPE, "Starting to watch HTTPEndpoint updates for SIGHUP reload");
        tracing::info!(target: SCOPE, "Starting to watch Resiliency updates");
        let (changed_tx, mut events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                let _ = changed_tx.send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(target: SCOPE, "resource files cannot be watched, changes are seen every {}s only: {error}", self.components.interval.as_secs());
                let polling = self.poll_folders(&folders);
                stopping.run_until_cancelled(polling).await;
                return;
            }
        };
        for folder in folders.paths() {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::error!(target: SCOPE, "failed to watch {}: {error}", folder.display());
            }
        }
        let mut ticks = tokio::time::interval_at(
            tokio::time::Instant::now() + self.components.interval,
            self.components.interval,
        );
        let following = async {
            loop {
                tokio::select! {
                    event = events.recv() => if event.is_none() { return },
                    due = self.components.due() => {
                        self.components.proceed(due).await;
                        continue;
                    }
                    _ = ticks.tick() => tracing::debug!(target: SCOPE, "Running scheduled Component reconcile"),
                }
                tokio::time::sleep(DEBOUNCE).await;
                while events.try_recv().is_ok() {}
                if !self.compare(&folders).await {
                    return;
                }
            }
        };
        stopping.run_until_cancelled(following).await;
    }

    async fn poll_folders(mut self, folders: &disk::Folders) {
        let mut ticks = tokio::time::interval_at(
            tokio::time::Instant::now() + self.components.interval,
            self.components.interval,
        );
        loop {
            tokio::select! {
                due = self.components.due() => {
                    self.components.proceed(due).await;
                    continue;
                }
                _ = ticks.tick() => {}
            }
            if !self.compare(folders).await {
                return;
            }
        }
    }

    /// Whether to go on.
    async fn compare(&mut self, folders: &disk::Folders) -> bool {
        match folders.load() {
            Ok(resources) => {
                if let Some(change) = self.endpoints.change(&resources.http_endpoints) {
                    change.tell();
                    // There is no receiver when the process is already ending.
                    let _ = self.demands.send(Restart);
                    return false;
                }
                self.policies.apply(resources.resiliencies);
                self.components.apply(resources.components).await;
                self.subscriptions.apply(resources.subscriptions);
                true
            }
            Err(error) => {
                tracing::error!(target: SCOPE, "the resources stay in use as they were: failed to load resources from disk: {error}");
                true
            }
        }
    }
}

fn spawn<F: Follow + 'static>(follower: F, operator: &Operator, tasks: &Tasks) {
    let following = follow(follower, operator.clone(), tasks.stopping());
    tasks.spawn(F::WATCHED, following);
}
