//! Input bindings: whether the application wants their events, and reading
//! them while it takes them.
//! <https://docs.dapr.io/developing-applications/building-blocks/bindings/howto-triggers/>

pub(crate) mod answer;
mod inlet;
mod probe;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use outrider_host::{Tasks, Workers};
use outrider_resiliency::Resiliency;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Api, Binding};
use crate::blocks::state;
use crate::components::map::Map;
use outrider_call::channel::Channel;

const SCOPE: &str = "dapr.runtime.processor.binding";
/// Pauses between tries to ask the application, and to start reading.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps reading the bindings whose events the application wants, while it is
/// healthy.
#[derive(Clone)]
pub struct Readers(Arc<Inner>);

struct Inner {
    channel: Option<Arc<Channel>>,
    resiliency: Resiliency,
    workers: Workers,
    tasks: Tasks,
    /// How long the application may take to say whether it wants events.
    probe_limit: Duration,
    outputs: answer::Outputs,
    /// What a gRPC application wants, once it has said so.
    listed: OnceCell<Vec<String>>,
    /// Cancelled when reading ends for good.
    ending: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the application takes events.
    up: bool,
    running: HashMap<String, Running>,
    /// What is being stopped, the latest of each name.
    finishing: HashMap<String, Running>,
}

struct Running {
    /// Weak, so that it can be closed.
    binding: Weak<Binding>,
    stop: CancellationToken,
    /// Cancelled when it is known whether the application wants the events, or
    /// that this will take longer.
    tried: CancellationToken,
    /// Cancelled when nothing of it is left.
    done: CancellationToken,
}

impl Running {
    fn is_of(&self, binding: &Arc<Binding>) -> bool {
        std::ptr::eq(self.binding.as_ptr(), Arc::as_ptr(binding))
    }
}

pub struct Options {
    pub api: Api,
    pub stores: Arc<Map<state::Store>>,
    pub channel: Option<Arc<Channel>>,
    pub probe_limit: Duration,
    pub resiliency: Resiliency,
    pub workers: Workers,
    pub tasks: Tasks,
}

impl Readers {
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            channel: options.channel,
            resiliency: options.resiliency,
            workers: options.workers,
            tasks: options.tasks,
            probe_limit: options.probe_limit,
            outputs: answer::Outputs {
                api: options.api,
                stores: options.stores,
            },
            listed: OnceCell::new(),
            ending: CancellationToken::new(),
            state: Mutex::default(),
        }))
    }

    /// Begins to read for the application, which is healthy now. Returns when
    /// it has been asked about every binding once.
    pub async fn start(&self) {
        let tried: Vec<_> = {
            let mut state = self.0.state();
            state.up = true;
            self.0.reconcile(&mut state);
            state.running.values().map(|r| r.tried.clone()).collect()
        };
        for tried in tried {
            tried.cancelled().await;
        }
    }

    /// Ends reading for the application, which is unhealthy now. Events at hand
    /// are still delivered.
    pub fn stop(&self) {
        let mut state = self.0.state();
        state.up = false;
        self.0.reconcile(&mut state);
    }

    /// Follows changes of the components, until it is dropped.
    pub async fn follow(self, mut changes: watch::Receiver<()>) {
        while changes.changed().await.is_ok() {
            self.0.reconcile(&mut self.0.state());
        }
    }

    /// Ends all reading for good. Events at hand are still delivered.
    pub fn finish(&self) {
        self.0.ending.cancel();
        self.0.reconcile(&mut self.0.state());
    }

    /// The same, and waits for the events at hand.
    pub async fn end(&self) {
        self.finish();
        self.0.tasks.stop(None).await;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Stops what is not wanted any more and starts what is missing.
    fn reconcile(self: &Arc<Self>, state: &mut State) {
        let reads = state.up && !self.ending.is_cancelled();
        let bindings = self.outputs.api.bindings.load();
        let wanted = bindings
            .iter()
            .filter(|(_, binding)| reads && binding.instance.direct().input.is_some());
        let wanted: HashMap<&String, &Arc<Binding>> = wanted.collect();
        for (name, running) in std::mem::take(&mut state.running) {
            if wanted
                .get(&name)
                .is_some_and(|binding| running.is_of(binding))
            {
                state.running.insert(name, running);
            } else {
                running.stop.cancel();
                state.finishing.insert(name, running);
            }
        }
        let finishing = &mut state.finishing;
        finishing.retain(|_, running| !running.done.is_cancelled());
        let Some(channel) = &self.channel else { return };
        for (name, binding) in wanted {
            if state.running.contains_key(name) {
                continue;
            }
            // A binding is read once at a time; one that takes over begins
            // while the one before finishes.
            let before = state.finishing.get(name);
            let before = before.filter(|running| running.is_of(binding));
            let before = before.map(|running| running.done.clone());
            let running = Running {
                binding: Arc::downgrade(binding),
                stop: CancellationToken::new(),
                tried: CancellationToken::new(),
                done: CancellationToken::new(),
            };
            let mut reader = Reader {
                inner: self.clone(),
                channel: channel.clone(),
                binding: binding.clone(),
                stop: running.stop.clone(),
                tried: Some(running.tried.clone().drop_guard()),
            };
            let done = running.done.clone();
            state.running.insert(name.clone(), running);
            self.tasks
                .spawn_on(&self.workers.next(), "input binding", async move {
                    let _done = done.drop_guard();
                    if let Some(before) = before {
                        // Its last event may take as long as it likes.
                        reader.tried = None;
                        before.cancelled().await;
                    }
                    reader.run().await;
                });
        }
    }
}

/// Reads one binding from its start to its end.
struct Reader {
    inner: Arc<Inner>,
    channel: Arc<Channel>,
    binding: Arc<Binding>,
    stop: CancellationToken,
    tried: Option<DropGuard>,
}

impl Reader {
    async fn run(mut self) {
        let name = self.binding.instance.name().to_owned();
        let stop = self.stop.clone();
        if !self.binding.settings.reads_unasked {
            let wants = tokio::select! {
                () = stop.cancelled() => return,
                wants = self.ask() => wants,
            };
            if !wants {
                tracing::info!(target: SCOPE, "app has not subscribed to binding {name}.");
                self.tried = None;
                stop.cancelled().await;
                return;
            }
        }
        let binding = self.binding.clone();
        let Some(input) = binding.instance.direct().input.as_deref() else {
            return;
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let cause = match self.read(input).await {
                Ok(()) => return,
                Err(cause) => cause,
            };
            self.tried = None;
            tracing::error!(target: SCOPE, "error reading from input binding {name}: {cause}; trying again in {}ms", pause.as_millis());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 3 / 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Whether the application wants the events of the binding. Asks until it
    /// answers, however long it takes to come.
    async fn ask(&mut self) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = probe::wants(&self.inner, &self.channel, &self.binding).await;
            let cause = match asked {
                Ok(wants) => return wants,
                Err(cause) => cause,
            };
            if self.tried.take().is_some() {
                tracing::warn!(target: SCOPE, "failed to read from bindings: {cause}; the application is asked again until it answers");
            } else {
                tracing::debug!(target: SCOPE, "failed to read from bindings: {cause}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests;
