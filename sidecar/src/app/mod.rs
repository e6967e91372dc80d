//! The process, from its flags to its exit code.

use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrider_call::channel::connect::Connector;
use outrider_call::channel::{self, Channel};
use outrider_components::resolve::Resolver;
use outrider_host::signal::Signals;
use outrider_host::{Tasks, Workers};
use outrider_net::server::phase::Leaving;
use outrider_security::user;
use outrider_telemetry::log;
use tokio::sync::{mpsc, watch};

use self::actors::AppActors;
use self::end::{Ask, ended_early};
use self::jobs::Jobs;
use self::settings::settings;
use crate::blocks::bindings::read::Readers;
use crate::blocks::configuration::subscriptions::Subscriptions;
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::blocks::shutdown::Asked;
use crate::components::live::Live;
use crate::flags::{Flags, Mode, Protocol};
use crate::resources::disk;
use crate::resources::follow::Restart;

mod actors;
mod application;
mod end;
mod host;
mod jobs;
mod middleware;
mod parts;
mod serve;
mod settings;
mod start;

const SCOPE: &str = "dapr.runtime";

type Failure = Box<dyn StdError + Send + Sync>;

/// Why one life of the runtime ended.
enum End {
    Restart,
    Exit(ExitCode),
}

/// Runs the sidecar until a signal ends it. A hangup starts it afresh in the
/// same process.
pub async fn run(flags: Flags) -> Result<ExitCode, Failure> {
    log::init(&flags.log)?;
    let version = outrider_host::VERSION;
    tracing::info!(target: SCOPE, "Starting Dapr Runtime -- version {version} -- commit outrider-{}", outrider_host::OUTRIDER_VERSION);
    tracing::info!(target: SCOPE, "Log level set to: {}", flags.log.level.to_lowercase());
    for ignored in &flags.ignored {
        tracing::warn!(target: SCOPE, "{ignored}");
    }
    let mut signals = Signals::new()?;
    let folders = disk::Folders::new(
        flags.resources.clone(),
        flags.app_id.clone(),
        flags.namespace.clone(),
    );
    let mut again = false;
    loop {
        match once(&flags, &folders, &mut signals, again)
            .await
            .map_err(|e| format!("Fatal error from runtime: {e}"))?
        {
            End::Restart => again = true,
            End::Exit(code) => return Ok(code),
        }
    }
}

/// One life: start, serve, drain. A signal ends it at any point. One that comes
/// `again`, after a restart, does not end because of a component.
async fn once(
    flags: &Flags,
    folders: &disk::Folders,
    signals: &mut Signals,
    again: bool,
) -> Result<End, Failure> {
    let started = Instant::now();
    let settings = settings(flags)?;
    user::refuse_root(settings.mode == Mode::Kubernetes, flags.skip_root_check)?;
    let tasks = Tasks::new();
    let runtime = tokio::select! {
        biased;
        signal = signals.next() => return ended_early(signal, &tasks).await,
        runtime = Runtime::start(flags, folders, settings, tasks.clone(), again) => runtime,
    };
    let mut runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tasks.stop(Some(Duration::from_secs(1))).await;
            return Err(error);
        }
    };
    runtime.watch_app(started);
    let asked = tokio::select! {
        signal = signals.next() => Ask::Signal(signal),
        Some(asked) = runtime.asked.recv() => Ask::Api(asked),
        Some(demand) = runtime.demands.recv() => Ask::Resources(demand),
    };
    runtime.end(flags, signals, asked).await
}

/// Everything that lives from start to end.
struct Runtime {
    tasks: Tasks,
    /// Listeners and connections, which end first.
    serving: Tasks,
    leaving: Leaving,
    live: Arc<Live>,
    subscriber: Subscriber,
    readers: Readers,
    configuration: Subscriptions,
    /// What this sidecar takes of the scheduler.
    jobs: Jobs,
    actors: AppActors,
    resolver: Option<Arc<dyn Resolver>>,
    channel: Option<(Arc<Channel>, Connector)>,
    probes: Option<channel::health::Settings>,
    protocol: Protocol,
    ready: outrider_host::Target,
    secure: outrider_host::Target,
    asked: mpsc::UnboundedReceiver<Asked>,
    demands: mpsc::UnboundedReceiver<Restart>,
    /// Whether the application is healthy.
    health: watch::Sender<bool>,
    sockets: Vec<std::path::PathBuf>,
    app_id: String,
    config_endpoint: bool,
    // Dropped last: the threads that everything above runs on.
    _workers: Workers,
}

impl Runtime {
    /// Goes on beside the APIs.
    fn watch_app(&self, started: Instant) {
        let ready = self.ready.clone();
        let initialized = move || {
            tracing::info!(target: SCOPE, "dapr initialized. Status: Running. Init Elapsed {}ms", started.elapsed().as_millis());
            ready.ready();
        };
        let Some((channel, connector)) = self.channel.clone() else {
            self.actors.host(None);
            initialized();
            return;
        };
        let watch = application::WatchApp {
            channel,
            connector,
            protocol: self.protocol,
            probes: self.probes.clone(),
            health_tx: self.health.clone(),
            app_id: self.app_id.clone(),
            asks_config: self.config_endpoint,
            subscriber: self.subscriber.clone(),
            readers: self.readers.clone(),
            jobs: self.jobs.clone(),
            actors: self.actors.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn("application", watch.run(initialized));
    }
}

/// `daprd --wait`: polls a running sidecar. Unlike the reference, the exit
/// code tells how it went.
pub fn wait_for_outbound(port: &str) -> ExitCode {
    host::wait_for_outbound(port)
}
