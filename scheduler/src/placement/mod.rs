//! Placement, where schedulers serve it: which of them does, and the streams of
//! sidecars that host actors. What is decided is decided in the engine of
//! placement.

mod lead;
mod metrics;
mod presence;
mod service;
mod session;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outrider_kit::quote;
use outrider_placement_engine::authority::{self, Announced, Authority, Member};
use outrider_placement_engine::by_type::Event;
use outrider_placement_engine::{Host, Settings, StreamId};
use outrider_placement_stream::Orders;
use outrider_telemetry::metrics::Registry;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::flags;
use lead::Lead;
use metrics::Metrics;
pub use presence::Presence;
pub use service::WithPlacement;

const SCOPE: &str = "dapr.scheduler.placement";

/// This scheduler's part in placement. Cloning shares it.
#[derive(Clone)]
pub struct Placement(Arc<Shared>);

struct Shared {
    id: String,
    is_enabled: bool,
    settings: Settings,
    metrics: Metrics,
    state: Mutex<State>,
    hosts: watch::Sender<Arc<[Announced]>>,
    /// The next deadline of the rounds may be another.
    deadline: Notify,
    /// A placement service may be there that was not there before.
    look: Notify,
}

#[derive(Default)]
struct State {
    authority: Authority,
    /// While this scheduler serves.
    lead: Option<Box<Lead>>,
    /// What was logged last.
    is_service_present: bool,
    has_warned: bool,
}

/// A connected sidecar, until this is dropped.
pub struct Sidecar {
    placement: Placement,
    sidecar: authority::Sidecar,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let change = |authority: &mut Authority| authority.disconnect(&self.sidecar);
        self.placement.change(change);
    }
}

impl Placement {
    pub fn new(id: String, flags: &flags::Placement, registry: &Registry) -> Self {
        Self(Arc::new(Shared {
            id,
            is_enabled: flags.is_enabled,
            settings: Settings {
                timeout: flags.timeout,
                window: flags.window,
            },
            metrics: Metrics::new(registry),
            state: Mutex::default(),
            hosts: watch::channel(Arc::from([])).0,
            deadline: Notify::new(),
            look: Notify::new(),
        }))
    }

    pub fn is_enabled(&self) -> bool {
        self.0.is_enabled
    }

    /// All schedulers, as they are announced to sidecars: none before they are known.
    pub fn hosts(&self) -> watch::Receiver<Arc<[Announced]>> {
        self.0.hosts.subscribe()
    }

    /// The schedulers that there are. None if this one does not run any more.
    pub fn set_members(&self, members: Vec<Member>, own: &str) {
        let addresses = |hosts: &[Announced]| -> Vec<String> {
            hosts.iter().map(|it| it.address.clone()).collect()
        };
        let before = addresses(&self.0.hosts.borrow());
        self.change(|authority| authority.set_members(members, own));
        let now = addresses(&self.0.hosts.borrow());
        if now != before && !now.is_empty() {
            tracing::info!(target: "dapr.scheduler.server", "schedulers are {}", now.join(", "));
        }
    }

    /// Ends all streams; none is served any more.
    pub fn stop(&self) {
        let mut state = self.state();
        if let Some(lead) = state.lead.take() {
            lead.end(&stopped(), &self.0.metrics);
            state.authority.set_streams(0);
            self.0.metrics.leads(false);
        }
        state.authority.set_members(Vec::new(), "");
        self.follow(&mut state);
    }

    /// A sidecar that waits for jobs. `addresses` are where it is configured to
    /// find placement services.
    pub fn connect(&self, can_follow: bool, addresses: &[String]) -> Sidecar {
        let sidecar = self.change(|authority| authority.connect(can_follow, addresses));
        Sidecar {
            placement: self.clone(),
            sidecar,
        }
    }

    /// Wakes the rounds at their deadlines.
    pub async fn keep_time(self, stopping: CancellationToken) {
        loop {
            let deadline = self.state().lead.as_ref().and_then(|it| it.next_deadline());
            let wake = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.0.deadline.notified() => {}
                () = wake => self.handle(Event::Woken),
            }
        }
    }

    /// Whether a stream may open now.
    fn serves(&self) -> Result<(), Status> {
        if !self.0.is_enabled {
            let text = "placement is not enabled on this scheduler";
            return Err(Status::unimplemented(text));
        }
        match self.state().lead {
            Some(_) => Ok(()),
            None => Err(self.not_leader()),
        }
    }

    fn not_leader(&self) -> Status {
        let id = quote::go(&self.0.id);
        Status::failed_precondition(format!("scheduler {id} is not the placement leader"))
    }

    /// Lets a stream in, whose first message this is.
    fn open(&self, host: Host) -> Result<(StreamId, Orders), Status> {
        let mut state = self.state();
        let Some(lead) = &mut state.lead else {
            return Err(self.not_leader());
        };
        let opened = lead.open(host, &self.0.metrics)?;
        self.follow(&mut state);
        Ok(opened)
    }

    /// A later message of a stream.
    fn report(&self, stream: StreamId, host: Host) -> Result<(), Status> {
        let mut state = self.state();
        let Some(lead) = &mut state.lead else {
            return Err(self.not_leader());
        };
        lead.report(stream, host, &self.0.metrics)?;
        self.follow(&mut state);
        Ok(())
    }

    fn handle(&self, event: Event) {
        let mut state = self.state();
        if let Some(lead) = &mut state.lead {
            let before = lead.streams();
            let is_changed = lead.handle(event, &self.0.metrics);
            // Most acknowledgements change nothing.
            if lead.streams() != before {
                self.follow(&mut state);
            } else if is_changed {
                self.0.deadline.notify_one();
            }
        }
    }

    fn close(&self, stream: StreamId) {
        let mut state = self.state();
        if let Some(lead) = &mut state.lead {
            lead.close(stream, &self.0.metrics);
            self.follow(&mut state);
        }
    }

    /// The result of one look for placement services.
    fn detected(&self, is_seen: bool, probed: &[String]) -> Duration {
        self.change(|authority| {
            authority.detected(is_seen, probed);
            authority.pause()
        })
    }

    fn addresses(&self) -> Vec<String> {
        self.state().authority.addresses()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Authority) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state.authority);
        self.follow(&mut state);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what follows from a change: serves or stops serving, and tells
    /// sidecars.
    fn follow(&self, state: &mut State) {
        if let Some(lead) = &state.lead {
            let streams = lead.streams();
            state.authority.set_streams(streams);
        }
        match (state.authority.serves(), state.lead.take()) {
            (true, None) => {
                let lead = Lead::new(self.0.settings, Instant::now());
                state.lead = Some(Box::new(lead));
                self.0.metrics.leads(true);
                tracing::info!(target: SCOPE, "scheduler {} serves placement", self.0.id);
            }
            (false, Some(lead)) => {
                lead.end(&self.not_leader(), &self.0.metrics);
                state.authority.set_streams(0);
                self.0.metrics.leads(false);
                tracing::info!(target: SCOPE, "scheduler {} does not serve placement any more", self.0.id);
            }
            (_, lead) => state.lead = lead,
        }
        self.0.metrics.incapable(state.authority.incapable());
        self.log(state);
        if state.authority.has_unprobed() {
            self.0.look.notify_one();
        }
        self.0.deadline.notify_one();
        let announced = state.authority.announced();
        self.0.hosts.send_if_modified(|hosts| {
            let differs = **hosts != *announced;
            if differs {
                *hosts = announced.into();
            }
            differs
        });
    }

    fn log(&self, state: &mut State) {
        let is_present = state.authority.is_service_present();
        if is_present && !std::mem::replace(&mut state.is_service_present, is_present) {
            tracing::info!(target: SCOPE, "actor placement stays with the placement service and this scheduler withholds its placement leader");
        }
        state.is_service_present = is_present;
        if state.authority.leaves_out() && !state.has_warned {
            state.has_warned = true;
            tracing::warn!(target: SCOPE, "a connected sidecar cannot use the placement that schedulers serve: its actors wait until it is upgraded");
        }
    }
}

fn stopped() -> Status {
    Status::unavailable("placement is shutting down")
}
