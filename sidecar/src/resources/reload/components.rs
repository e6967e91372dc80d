//! Components that change while the sidecar runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::FuturesUnordered;
use outrider_crds::Component;
use tokio::time::Instant;

use super::SCOPE;
use super::follow::Follow;
use super::reports::Reports;
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::components::start::{StartOutcome, Starter, secret_stores_first};
use crate::resources::operator::{Change, Error, Operator};

/// Pauses between two tries to start a component.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the components in use as the source wants them. They start side by
/// side, so that one that takes long holds up no other change.
pub struct Components {
    starter: Arc<Starter>,
    subscriber: Subscriber,
    /// What is in use, as it was read, what is to replace it or to come into
    /// use, and what cannot be used as it is.
    loaded: HashMap<String, Component>,
    starting: HashMap<String, Starting>,
    failed: HashMap<String, Failed>,
    running: FuturesUnordered<Abortable<BoxFuture<'static, Outcome>>>,
    /// Time between full comparisons.
    pub interval: Duration,
    /// Where failures are reported, if anywhere.
    pub(super) reports: Option<Reports>,
}

/// How the start of a component ended, by its name.
type Outcome = (String, Result<StartOutcome, String>);

/// A component on its way into use.
struct Starting {
    component: Component,
    /// Until it is tried again, should it fail.
    pause: Duration,
    /// None while the secret store that it needs is starting.
    abort: Option<AbortHandle>,
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

/// What is to be done next.
pub enum Due {
    Ended(Result<Outcome, Aborted>),
    Retry,
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
            let (status, pause) = (&starter.live.status, FIRST_PAUSE);
            status.next_try::<Component>(&component.metadata.name, Some(pause));
            let name = component.metadata.name.clone();
            loaded.remove(&name);
            (name, Failed::new(component, FIRST_PAUSE))
        });
        let failed = failed.collect();
        Self {
            starter,
            subscriber,
            loaded,
            starting: HashMap::new(),
            failed,
            running: FuturesUnordered::new(),
            interval,
            reports: None,
        }
    }

    /// What is listed, with what the sidecar itself has put there.
    fn with_builtin(&self, mut listed: Vec<Component>) -> Vec<Component> {
        let not_in_use = self.not_in_use(BUILTIN_STORE);
        if let Some(builtin) = not_in_use.or_else(|| self.loaded.get(BUILTIN_STORE))
            && !listed.iter().any(|c| c.metadata.name == BUILTIN_STORE)
        {
            listed.push(builtin.clone());
        }
        listed
    }

    /// A component that is wanted and starting, or failed.
    fn not_in_use(&self, name: &str) -> Option<&Component> {
        let starting = self.starting.get(name).map(|s| &s.component);
        starting.or_else(|| self.failed.get(name).map(|f| &f.component))
    }

    /// All that is wanted, as far as it was read.
    fn wanted(&self) -> HashMap<String, Component> {
        let mut wanted = self.loaded.clone();
        let failed = self.failed.values().map(|failed| &failed.component);
        let starting = self.starting.values().map(|starting| &starting.component);
        for component in failed.chain(starting) {
            wanted.insert(component.metadata.name.clone(), component.clone());
        }
        wanted
    }

    /// Deletes what is not wanted, and begins to start what is new or changed.
    pub async fn apply(&mut self, mut wanted: Vec<Component>) {
        let names: HashSet<&String> = wanted.iter().map(|c| &c.metadata.name).collect();
        self.failed.retain(|name, _| names.contains(name));
        let gone = self.starting.extract_if(|name, _| !names.contains(name));
        gone.for_each(|(_, starting)| starting.abort());
        let gone = self.loaded.extract_if(|name, _| !names.contains(name));
        for (name, component) in gone {
            tracing::info!(target: SCOPE, "Component deleted: {}", component.log_name());
            self.starter.remove(&name);
        }
        let status = &self.starter.live.status;
        status.retain::<Component>(|name| names.iter().any(|known| *known == name));
        // Subscriptions of a broker that is gone end.
        self.subscriber.refresh().await;
        secret_stores_first(&mut wanted);
        for component in wanted {
            let name = &component.metadata.name;
            match self.not_in_use(name) {
                // It is starting, or tried again when it is time.
                Some(before) if same(before, &component) => continue,
                Some(_) => {
                    self.failed.remove(name);
                    if let Some(starting) = self.starting.remove(name) {
                        starting.abort();
                    }
                    self.starter.live.status.remove::<Component>(name);
                }
                None => {}
            }
            if self.loaded.get(name).is_some_and(|b| same(b, &component)) {
                continue;
            }
            tracing::info!(target: SCOPE, "Adding Component for processing: {}", component.log_name());
            self.start(component, FIRST_PAUSE);
        }
        self.start_waiting();
    }

    /// Begins to start a component, or has it wait for its secret store.
    fn start(&mut self, component: Component, pause: Duration) {
        let abort = (!self.waits(&component)).then(|| self.run(component.clone()));
        let name = component.metadata.name.clone();
        let starting = Starting {
            component,
            pause,
            abort,
        };
        self.starting.insert(name, starting);
    }

    /// Whether it needs a secret store that is just starting.
    fn waits(&self, component: &Component) -> bool {
        let store = self.starter.sources.store(&component.auth.secret_store);
        let mut items = component.spec.metadata.iter();
        items.any(|item| !item.secret_key_ref.is_unset())
            && store != component.metadata.name
            && self.starting.get(store).is_some_and(|s| s.abort.is_some())
    }

    /// Starts those whose secret stores are not starting any more.
    fn start_waiting(&mut self) {
        let waiting = self.starting.values().filter(|s| s.abort.is_none());
        let waiting: Vec<Component> = waiting.map(|s| s.component.clone()).collect();
        for component in waiting {
            if !self.waits(&component) {
                let abort = self.run(component.clone());
                if let Some(starting) = self.starting.get_mut(&component.metadata.name) {
                    starting.abort = Some(abort);
                }
            }
        }
    }

    fn run(&self, component: Component) -> AbortHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let starter = self.starter.clone();
        let start = async move {
            let result = starter.start(&component).await;
            (component.metadata.name, result)
        };
        self.running
            .push(Abortable::new(Box::pin(start), registration));
        abort
    }

    /// Waits until there is something to do. Nothing is lost if this is dropped.
    pub async fn due(&mut self) -> Due {
        let again = self.failed.values().map(|failed| failed.again).min();
        let retry = async {
            match again {
                Some(again) => tokio::time::sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.running.next() => Due::Ended(ended),
            () = retry => Due::Retry,
        }
    }

    /// Does what is due.
    pub async fn proceed(&mut self, due: Due) {
        match due {
            Due::Retry => self.retry(),
            Due::Ended(Err(Aborted)) => {}
            Due::Ended(Ok((name, result))) => self.ended(name, result).await,
        }
    }

    /// One that started lets those start that waited for it. One that failed
    /// leaves the one before in use; it is tried again.
    async fn ended(&mut self, name: String, result: Result<StartOutcome, String>) {
        let Some(starting) = self.starting.remove(&name) else {
            return;
        };
        let Starting {
            component, pause, ..
        } = starting;
        let shown = component.log_name();
        let started = match result {
            Ok(started) => {
                if started == StartOutcome::InUse {
                    tracing::info!(target: SCOPE, "Component updated: {shown}");
                    for waiting in self.starter.waiting_for(&component) {
                        // A newer one of that name may be starting already.
                        if !self.starting.contains_key(&waiting.metadata.name) {
                            self.start(waiting, FIRST_PAUSE);
                        }
                    }
                }
                self.loaded.insert(name, component);
                started == StartOutcome::InUse
            }
            Err(text) => {
                let meanwhile = match self.starter.live.has(&name) {
                    true => "the one before stays in use",
                    false => "there is none of its name",
                };
                tracing::error!(target: SCOPE, "Component {shown} cannot be used, {meanwhile} until it is corrected; it is tried again in {}s: {text}", pause.as_secs());
                if let Some(reports) = &self.reports {
                    reports.send(&name, &text);
                }
                let status = &self.starter.live.status;
                status.next_try::<Component>(&name, Some(pause));
                self.failed.insert(name, Failed::new(component, pause));
                false
            }
        };
        self.start_waiting();
        if started {
            self.subscriber.refresh().await;
        }
    }

    /// Tries those again whose time has come.
    fn retry(&mut self) {
        let now = Instant::now();
        let due = self.failed.extract_if(|_, failed| failed.again <= now);
        let due: Vec<Failed> = due.map(|(_, failed)| failed).collect();
        for failed in due {
            let pause = (failed.pause * 2).min(LONGEST_PAUSE);
            let status = &self.starter.live.status;
            status.next_try::<Component>(&failed.component.metadata.name, None);
            self.start(failed.component, pause);
        }
    }
}

impl Starting {
    fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
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
                due = self.due() => {
                    self.proceed(due).await;
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

    async fn meanwhile(&mut self) {
        loop {
            let due = self.due().await;
            self.proceed(due).await;
        }
    }
}

/// The secret store that a sidecar in Kubernetes has by itself.
pub const BUILTIN_STORE: &str = "kubernetes";

/// Metadata besides the name says nothing about the component itself.
fn same(a: &Component, b: &Component) -> bool {
    a.spec == b.spec && a.auth == b.auth && a.scopes == b.scopes
}
