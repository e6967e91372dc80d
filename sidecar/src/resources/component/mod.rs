//! Components. They start side by side, so that one that takes long holds up
//! no other change.

mod plan;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::FuturesUnordered;
use outrider_crds::Component;
use outrider_proto::operator::v1 as wire;
use prost::Message as _;
use tokio::time::Instant;

use self::plan::{Abort, Attempt, Book, Stage};
use super::follow::{Apply, Restart};
use super::kind::{Stored, Watch};
use super::operator::reports::Reports;
use super::operator::{Error, Events, Operator};
use super::{Resources, SCOPE};
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::components::start::{StartOutcome, Starter};
use crate::components::status::{Table, WaitsFor};

/// Pauses between two tries to start a component.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The secret store that a sidecar in Kubernetes has by itself.
const BUILTIN_STORE: &str = "kubernetes";

#[derive(Clone)]
pub struct Components {
    /// Time between full comparisons.
    pub interval: Duration,
    /// Whether there is a secret store that no resource asks for.
    pub has_builtin_store: bool,
}

impl Watch for Components {
    type Resource = Component;
    type Event = wire::ComponentUpdateEvent;

    const UPDATES: &'static str = "Component updates";

    /// Metadata besides the name says nothing about the component itself.
    fn same(a: &Component, b: &Component) -> bool {
        a.spec == b.spec && a.auth == b.auth && a.scopes == b.scopes
    }

    async fn list(&self, operator: &Operator) -> Result<Vec<Component>, Error> {
        let namespace = operator.namespace();
        let request = wire::ListComponentsRequest { namespace };
        let (sent, mut client) = (request.encoded_len(), operator.client());
        let listing = client.list_components(request);
        let answer = operator.timed("ListComponents", sent, listing).await?;
        let mut listed: Vec<Component> = operator.scoped(&answer.components);
        let is_builtin = |component: &Component| component.metadata.name == BUILTIN_STORE;
        if self.has_builtin_store && !listed.iter().any(is_builtin) {
            listed.push(builtin_store());
        }
        Ok(listed)
    }

    async fn open(&self, operator: &Operator) -> Result<Events<Self::Event>, Error> {
        let namespace = operator.namespace();
        let request = wire::ComponentUpdateRequest { namespace };
        let mut client = operator.client();
        Events::open(async move { client.component_update(request).await }).await
    }

    fn resync(&self) -> Option<Duration> {
        Some(self.interval)
    }
}

impl Stored for Components {
    fn take(loaded: &mut Resources) -> Vec<Component> {
        std::mem::take(&mut loaded.components)
    }
}

fn builtin_store() -> Component {
    let mut component = Component::default();
    component.metadata.name = BUILTIN_STORE.to_owned();
    component.spec.component_type = "secretstores.kubernetes".to_owned();
    component.spec.version = "v1".to_owned();
    component
}

/// Keeps the components in use as they are wanted.
pub struct Applier {
    starter: Arc<Starter>,
    subscriber: Subscriber,
    /// Where failures are reported, if anywhere.
    reports: Option<Reports>,
    book: Book,
    running: FuturesUnordered<Abortable<BoxFuture<'static, Ended>>>,
    due: Option<Due>,
}

/// How the start of a component ended, by its name.
type Ended = (String, Result<StartOutcome, String>);

/// What is to be done next.
enum Due {
    Ended(Result<Ended, Aborted>),
    Retry,
}

impl Applier {
    /// `listed` are all that there were at the start, `failed` those of them
    /// that could not be started.
    pub fn new(
        starter: Arc<Starter>,
        subscriber: Subscriber,
        reports: Option<Reports>,
        listed: Vec<Component>,
        failed: Vec<Component>,
    ) -> Self {
        let mut applier = Self {
            starter,
            subscriber,
            reports,
            book: Book::default(),
            running: FuturesUnordered::new(),
            due: None,
        };
        for component in listed {
            let name = &component.metadata.name;
            if !failed.iter().any(|failed| failed.metadata.name == *name) {
                let in_use = applier.starter.live.has(name);
                applier.book.settle(component, in_use);
            }
        }
        for component in failed {
            applier.failed(component, FIRST_PAUSE);
        }
        applier
    }

    fn status(&self) -> &Table {
        &self.starter.live.status
    }

    /// Keeps one that could not be started for another try.
    fn failed(&mut self, component: Component, pause: Duration) {
        let name = &component.metadata.name;
        self.status().next_try::<Component>(name, Some(pause));
        self.book.begin(Attempt {
            component,
            pause,
            stage: Stage::Failed {
                again: Instant::now() + pause,
            },
        });
    }

    /// Begins to start a component, or has it wait for its secret store.
    fn start(&mut self, component: Component, pause: Duration) {
        let stage = match self.starting_store(&component) {
            Some(store) => {
                let waits_for = WaitsFor::SecretStore(store);
                let name = &component.metadata.name;
                self.status().parked::<Component>(name, waits_for);
                Stage::Parked
            }
            None => Stage::Starting(self.run(component.clone())),
        };
        self.book.begin(Attempt {
            component,
            pause,
            stage,
        });
    }

    /// The secret store that the component needs, if that is just starting.
    fn starting_store(&self, component: &Component) -> Option<String> {
        let store = self.starter.sources.store(&component.auth.secret_store);
        let mut items = component.spec.metadata.iter();
        let waits = items.any(|item| !item.secret_key_ref.is_unset())
            && store != component.metadata.name
            && self.book.is_starting(store);
        waits.then(|| store.to_owned())
    }

    /// Starts those whose secret stores are not starting any more.
    fn start_parked(&mut self) {
        for name in self.book.parked() {
            let attempt = self.book.finish(&name);
            if let Some(Attempt {
                component, pause, ..
            }) = attempt
            {
                self.start(component, pause);
            }
        }
    }

    fn run(&self, component: Component) -> Abort {
        let (abort, registration) = AbortHandle::new_pair();
        let starter = self.starter.clone();
        let start = async move {
            let result = starter.start(&component).await;
            (component.metadata.name, result)
        };
        self.running
            .push(Abortable::new(Box::pin(start), registration));
        Abort(abort)
    }

    /// One that started lets those start that waited for it. One that failed
    /// leaves the one before in use; it is tried again.
    async fn ended(&mut self, name: String, result: Result<StartOutcome, String>) {
        let Some(Attempt {
            component, pause, ..
        }) = self.book.finish(&name)
        else {
            return;
        };
        let shown = component.log_name();
        let started = match result {
            Ok(outcome) => {
                let in_use = outcome == StartOutcome::InUse;
                if in_use {
                    tracing::info!(target: SCOPE, "Component updated: {shown}");
                    for waiting in self.starter.waiting_for(&component) {
                        // A newer one of that name may be starting already.
                        if !self.book.has_attempt(&waiting.metadata.name) {
                            self.start(waiting, FIRST_PAUSE);
                        }
                    }
                }
                self.book.settle(component, in_use);
                in_use
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
                self.failed(component, pause);
                false
            }
        };
        self.start_parked();
        if started {
            self.subscriber.refresh().await;
        }
    }

    /// Tries those again whose time has come.
    fn retry(&mut self) {
        let now = Instant::now();
        let is_due =
            |attempt: &Attempt| matches!(attempt.stage, Stage::Failed { again } if again <= now);
        for failed in self.book.take_attempts(is_due) {
            let name = &failed.component.metadata.name;
            self.status().next_try::<Component>(name, None);
            let pause = (failed.pause * 2).min(LONGEST_PAUSE);
            self.start(failed.component, pause);
        }
    }
}

impl Apply<Components> for Applier {
    /// Deletes what is not wanted, and begins to start what is new or changed.
    async fn apply(&mut self, wanted: Vec<Component>) -> ControlFlow<Restart> {
        let plan = self.book.plan(wanted);
        for gone in plan.gone {
            if let Some(component) = gone.component {
                tracing::info!(target: SCOPE, "Component deleted: {}", component.log_name());
            }
            self.starter.remove(&gone.name);
        }
        // Subscriptions of a broker that is gone end.
        self.subscriber.refresh().await;
        for name in plan.given_up {
            match self.starter.live.has(&name) {
                true => self.status().running::<Component>(&name),
                false => self.status().remove::<Component>(&name),
            }
        }
        for component in plan.start {
            tracing::info!(target: SCOPE, "Adding Component for processing: {}", component.log_name());
            self.start(component, FIRST_PAUSE);
        }
        self.start_parked();
        ControlFlow::Continue(())
    }

    async fn due(&mut self) {
        let again = self.book.next_try();
        let retry = async {
            match again {
                Some(again) => tokio::time::sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        let due = tokio::select! {
            Some(ended) = self.running.next() => Due::Ended(ended),
            () = retry => Due::Retry,
        };
        self.due = Some(due);
    }

    async fn proceed(&mut self) {
        match self.due.take() {
            Some(Due::Ended(Ok((name, result)))) => self.ended(name, result).await,
            Some(Due::Ended(Err(Aborted))) | None => {}
            Some(Due::Retry) => self.retry(),
        }
    }
}
