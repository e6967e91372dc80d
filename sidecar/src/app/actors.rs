//! Actors, and the application as one who hosts them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outrider_actors::apps::config::Config;
use outrider_actors::apps::http::HttpApp;
use outrider_actors::hosting::{Hosting, Nobody, Registration, Types};
use outrider_actors::timers::Timers;
use outrider_actors::waiting::Waiting;
use outrider_actors::{Actors, Options, placement};
use outrider_call::channel::{Channel, Kind};
use outrider_call::headers::Caller;
use outrider_host::{Readiness, Tasks};
use outrider_metrics::Metrics;
use outrider_peer::call::Peers;
use outrider_resiliency::Resiliency;
use outrider_scheduler_client::Scheduler;
use outrider_security::Security;
use outrider_telemetry::metrics::Registry;
use outrider_trace::Tracer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use super::{Failure, SCOPE};
use crate::blocks::Components;
use crate::blocks::actors::Api;
use crate::blocks::actors::state::ActorState;
use crate::components::live::Live;
use crate::flags::Flags;

/// How long actors may take to go if the end may take for ever.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);

/// What actors are made with.
pub struct Parts<'a> {
    pub flags: &'a Flags,
    pub settings: &'a Settings,
    pub security: &'a Security,
    pub readiness: &'a Readiness,
    pub registry: &'a Registry,
    pub metrics: &'a Metrics,
    pub components: &'a Components,
    pub live: &'a Live,
    pub resiliency: &'a Resiliency,
    pub features: &'a [String],
    pub peers: Peers,
    pub channel: Option<Arc<Channel>>,
    /// Of the internal API, `host:port`.
    pub address: String,
    pub scheduler: &'a Scheduler,
    pub tasks: &'a Tasks,
}

/// What the application hosts, as it says. Cloning shares it.
#[derive(Clone)]
pub struct AppActors(Arc<Inner>);

struct Inner {
    actors: Actors,
    channel: Option<Arc<Channel>>,
    dissemination: Duration,
    registration: Mutex<Option<Registration>>,
    /// Nothing is hosted any more.
    leaving: CancellationToken,
}

impl Parts<'_> {
    /// Operations on actors, and what tells which ones the application has. From
    /// now on placement is followed.
    pub fn start(self) -> Result<(Api, AppActors), Failure> {
        let plane = &self.flags.control_plane;
        let state = ActorState {
            stores: self.components.state.clone(),
            expires: self
                .features
                .iter()
                .any(|feature| feature == "ActorStateTTL"),
        };
        if let [first, second, ..] = state.names().as_slice() {
            let why = format!("detected duplicate actor state store: {first} and {second}");
            return Err(why.into());
        }
        let leaving = CancellationToken::new();
        let actors = self.actors(state.clone(), leaving.clone());
        self.follow(&actors, state.clone(), &leaving)?;
        let app = AppActors(Arc::new(Inner {
            actors: actors.clone(),
            channel: self.channel.clone(),
            dissemination: plane.dissemination,
            registration: Mutex::default(),
            leaving,
        }));
        let api = Api {
            caller: Caller::new(&self.flags.app_id, &self.settings.namespace),
            app_id: self.flags.app_id.clone(),
            channel: self.channel,
            state,
            limit: self.flags.api.max_body,
            dissemination: plane.dissemination,
            stopping: self.tasks.stopping(),
            waiting: Waiting::default(),
            actors,
        };
        Ok((api, app))
    }

    fn actors(&self, state: ActorState, leaving: CancellationToken) -> Actors {
        let plane = &self.flags.control_plane;
        let actors = Actors::new(Options {
            namespace: self.settings.namespace.clone(),
            address: self.address.clone(),
            enabled: !plane.placement.is_empty(),
            has_store: Box::new(move || !leaving.is_cancelled() && state.store().is_some()),
            mtls: plane.mtls,
            hosting: Hosting::new(),
            peers: self.peers.clone(),
            resiliency: self.resiliency.clone(),
            metrics: self.metrics.actors(),
            tasks: self.tasks.clone(),
        });
        let counted = actors.clone();
        self.metrics.actors().reading(
            self.registry,
            "pending_actor_calls",
            "Calls that wait for their turn.",
            move || {
                let waiting = counted.waiting().into_iter();
                waiting.map(|(kind, calls)| (kind, calls as u64)).collect()
            },
        );
        actors
    }

    /// Follows deadlines, placement, and whether there is a store.
    fn follow(
        &self,
        actors: &Actors,
        state: ActorState,
        leaving: &CancellationToken,
    ) -> Result<(), Failure> {
        let (plane, stopping) = (&self.flags.control_plane, self.tasks.stopping());
        self.tasks
            .spawn("turns of actors", actors.clone().run(stopping.clone()));
        let announced = self.scheduler.placement();
        if plane.placement.is_empty() && announced.is_none() {
            tracing::info!(target: SCOPE, "Actor runtime disabled: no placement address was given");
            return Ok(());
        }
        let (has_store_tx, has_store) = watch::channel(state.store().is_some());
        let mut changes = self.live.changes();
        let leaving = leaving.clone();
        let mut before = state.store().as_ref().map(Arc::downgrade);
        self.tasks.spawn("store of actors", async move {
            loop {
                tokio::select! {
                    () = leaving.cancelled() => break,
                    changed = changes.changed() => if changed.is_err() { break },
                }
                let now = state.store();
                let known = now.as_ref().map(Arc::downgrade);
                if let (Some(before), Some(known), Some(now)) = (&before, &known, &now)
                    && !before.ptr_eq(known)
                {
                    tracing::info!(target: SCOPE, "Actor state store {} updated - actor hosting continues", now.instance.name());
                }
                let has_now = now.is_some();
                has_store_tx.send_if_modified(|has| std::mem::replace(has, has_now) != has_now);
                before = known;
            }
            has_store_tx.send_replace(false);
        });
        let options = placement::Options {
            addresses: plane.placement.clone(),
            service: self.security.connector_to_service("dapr-placement")?,
            announced,
            scheduler: self.security.connector_to_service("dapr-scheduler")?,
            startup: plane.placement_startup,
            app_id: self.flags.app_id.clone(),
            namespace: self.settings.namespace.clone(),
            timeout: plane.dissemination,
            has_store,
            ready: self.readiness.target("internal-placement-service"),
        };
        let following = placement::follow(actors.clone(), options, stopping);
        self.tasks.spawn("placement", following);
        Ok(())
    }
}

impl AppActors {
    /// Hosts what the application says in its answer to `GET /dapr/config`;
    /// nothing if it says nothing.
    pub fn host(&self, said: Option<&Bytes>) {
        if self.0.leaving.is_cancelled() {
            return;
        }
        let types = match said.map(|said| Config::parse(said)) {
            None => Ok(Types::new()),
            Some(Ok(config)) => config.types(self.0.dissemination),
            Some(Err(error)) => Err(error),
        };
        let types = types.unwrap_or_else(|error| {
            tracing::warn!(target: SCOPE, "Failed to register hosted actors: {error}");
            Types::new()
        });
        let hosting = self.0.actors.hosting();
        let registration = match &self.0.channel {
            Some(channel) if matches!(channel.kind, Kind::Http(_)) => {
                let channel = channel.clone();
                hosting.register(types, Arc::new(HttpApp { channel }))
            }
            _ => hosting.register(Types::new(), Arc::new(Nobody)),
        };
        self.set(Some(registration));
        self.0.actors.set_initialized();
    }

    /// The application is unwell: nothing is hosted until it says again what.
    pub fn withdraw(&self) {
        self.set(None);
    }

    fn set(&self, registration: Option<Registration>) {
        let mut slot = self
            .0
            .registration
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The one before is dropped after the new one is there.
        let before = std::mem::replace(&mut *slot, registration);
        drop(slot);
        drop(before);
    }

    /// Gives all actors up: placement first has them elsewhere, if it can. Half
    /// of the time that the end may take is left for others.
    pub async fn leave(&self, grace: Option<Duration>) {
        self.0.leaving.cancel();
        let limit = grace.map_or(LEAVE_LIMIT, |grace| grace / 2);
        self.0.actors.leave(limit).await;
        self.set(None);
    }
}

/// Timers, which fire from now on.
pub fn timers(actors: &Actors, metrics: &Metrics, registry: &Registry, tasks: &Tasks) -> Timers {
    let timers = Timers::new(actors.clone(), metrics.actors(), tasks.clone());
    let counted = timers.clone();
    let help = "Timers that are registered.";
    let read = move || counted.counts();
    metrics.actors().reading(registry, "timers", help, read);
    tasks.spawn("timers", timers.clone().run(tasks.stopping()));
    timers
}

/// The internal API at a host, `host:port`.
pub fn address(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{}]:{port}", host.trim_matches(['[', ']'])),
        false => format!("{host}:{port}"),
    }
}

/// What answers other sidecars.
pub fn callee(api: &Api, tracer: Tracer) -> outrider_actors::serve::Callee {
    outrider_actors::serve::Callee {
        tracer,
        actors: api.actors.clone(),
        waiting: api.waiting.clone(),
        limit: api.limit,
    }
}
