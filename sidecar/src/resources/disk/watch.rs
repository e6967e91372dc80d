//! The folders of resource files as the source of every kind.

use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Folders;
use crate::resources::component::Components;
use crate::resources::follow::Source;
use crate::resources::http_endpoint::HttpEndpoints;
use crate::resources::kind::{Stored, Watch};
use crate::resources::resiliency::Resiliencies;
use crate::resources::subscription::Subscriptions;
use crate::resources::wanted::Wanted;
use crate::resources::{Resources, SCOPE};

/// Events of one change of a file come in a burst.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// All of one kind, each time that the folders have been read.
pub struct Files<W: Watch> {
    listed: mpsc::Receiver<Listed<W>>,
    applied: Option<oneshot::Sender<()>>,
}

struct Listed<W: Watch> {
    all: Vec<W::Resource>,
    /// Sent to when they have been applied, dropped when that ended everything.
    applied: oneshot::Sender<()>,
}

/// What tells a [`Files`].
struct Feed<W: Watch>(mpsc::Sender<Listed<W>>);

impl<W: Watch> Source<W> for Files<W> {
    async fn next(&mut self) -> Option<Wanted<W>> {
        if let Some(applied) = self.applied.take() {
            let _ = applied.send(());
        }
        let Listed { all, applied } = self.listed.recv().await?;
        self.applied = Some(applied);
        Some(Wanted::All(all))
    }
}

fn channel<W: Watch>() -> (Feed<W>, Files<W>) {
    let (feed, listed) = mpsc::channel(1);
    let files = Files {
        listed,
        applied: None,
    };
    (Feed(feed), files)
}

impl<W: Stored> Feed<W> {
    /// Returns when what was loaded has been applied; false if there is no
    /// point in going on.
    async fn feed(&self, loaded: &mut Resources) -> bool {
        let (applied, is_applied) = oneshot::channel();
        let all = W::take(loaded);
        self.0.send(Listed { all, applied }).await.is_ok() && is_applied.await.is_ok()
    }
}

/// Reads the folders at each change, and tells every kind.
pub struct Reader {
    folders: Folders,
    /// Time between full comparisons.
    interval: Duration,
    http_endpoints: Feed<HttpEndpoints>,
    resiliencies: Feed<Resiliencies>,
    components: Feed<Components>,
    subscriptions: Feed<Subscriptions>,
}

/// What the kinds get from a [`Reader`].
pub struct Sources {
    pub http_endpoints: Files<HttpEndpoints>,
    pub resiliencies: Files<Resiliencies>,
    pub components: Files<Components>,
    pub subscriptions: Files<Subscriptions>,
}

impl Reader {
    pub fn new(folders: Folders, interval: Duration) -> (Self, Sources) {
        let http_endpoints = channel();
        let resiliencies = channel();
        let components = channel();
        let subscriptions = channel();
        let reader = Self {
            folders,
            interval,
            http_endpoints: http_endpoints.0,
            resiliencies: resiliencies.0,
            components: components.0,
            subscriptions: subscriptions.0,
        };
        let sources = Sources {
            http_endpoints: http_endpoints.1,
            resiliencies: resiliencies.1,
            components: components.1,
            subscriptions: subscriptions.1,
        };
        (reader, sources)
    }

    /// Goes on until a kind has demanded a restart.
    pub async fn run(self) {
        self.announce();
        let (changed, mut events) = mpsc::unbounded_channel();
        // Without one there are no events.
        let _watcher = self.watch(changed);
        // What changed between the load at the start and now.
        if !self.read().await {
            return;
        }
        let first = Instant::now() + self.interval;
        let mut ticks = tokio::time::interval_at(first, self.interval);
        loop {
            tokio::select! {
                Some(()) = events.recv() => {}
                _ = ticks.tick() => tracing::debug!(target: SCOPE, "Running scheduled Component reconcile"),
            }
            tokio::time::sleep(DEBOUNCE).await;
            while events.try_recv().is_ok() {}
            if !self.read().await {
                return;
            }
        }
    }

    fn announce(&self) {
        let folders = self.folders.paths().iter();
        let folders: Vec<String> = folders.map(|path| path.display().to_string()).collect();
        tracing::info!(target: SCOPE, "Watching directories: [{}]", folders.join(", "));
        for updates in [
            Components::UPDATES,
            Subscriptions::UPDATES,
            HttpEndpoints::UPDATES,
            Resiliencies::UPDATES,
        ] {
            tracing::info!(target: SCOPE, "Starting to watch {updates}");
        }
    }

    fn watch(&self, changed: mpsc::UnboundedSender<()>) -> Option<RecommendedWatcher> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                let _ = changed.send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(target: SCOPE, "resource files cannot be watched, changes are seen every {}s only: {error}", self.interval.as_secs());
                return None;
            }
        };
        for folder in self.folders.paths() {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::error!(target: SCOPE, "failed to watch {}: {error}", folder.display());
            }
        }
        Some(watcher)
    }

    /// One kind after the other, so that a restart comes before anything else
    /// and components start with their policies. Returns whether to go on.
    async fn read(&self) -> bool {
        let mut loaded = match self.folders.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(target: SCOPE, "the resources stay in use as they were: failed to load resources from disk: {error}");
                return true;
            }
        };
        self.http_endpoints.feed(&mut loaded).await
            && self.resiliencies.feed(&mut loaded).await
            && self.components.feed(&mut loaded).await
            && self.subscriptions.feed(&mut loaded).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names<W: Stored>(files: &mut Files<W>) -> Vec<String> {
        use outrider_crds::Kind as _;
        match files.next().await {
            Some(Wanted::All(all)) => all.iter().map(|r| r.metadata().name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_are_told_one_after_the_other_and_none_after_a_restart_was_demanded() {
        let folder = tempfile::tempdir().unwrap();
        let of_kind = |kind: &str| {
            format!("apiVersion: dapr.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {kind}}}\n---\n")
        };
        let text = of_kind("HTTPEndpoint") + &of_kind("Resiliency");
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let folders = Folders::new(vec![folder.path().to_owned()], "app".to_owned(), None);
        let (reader, sources) = Reader::new(folders, Duration::from_secs(60));
        let Sources {
            mut http_endpoints,
            mut resiliencies,
            ..
        } = sources;
        let kinds = async {
            assert_eq!(names(&mut http_endpoints).await, ["HTTPEndpoint"]);
            let pause = Duration::from_secs(1);
            let early = tokio::time::timeout(pause, names(&mut resiliencies)).await;
            early.unwrap_err();
            // Asking for more says that what came before was applied.
            let (next, seen) = tokio::join!(
                tokio::time::timeout(pause, names(&mut http_endpoints)),
                names(&mut resiliencies),
            );
            next.unwrap_err();
            assert_eq!(seen, ["Resiliency"]);
            drop(resiliencies);
        };
        let (goes_on, ()) = tokio::join!(reader.read(), kinds);
        assert!(!goes_on);
    }
}
