//! The process, from its flags to its exit code.

use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrider_catalog as catalog;
use outrider_components::Context;
use outrider_components::resolve::Resolver;
use outrider_host::signal::Signals;
use outrider_host::{Readiness, Tasks, Workers, listen};
use outrider_resiliency::Resiliency;
use outrider_security::{Acceptor, Clients, Expected, Security, user};
use outrider_telemetry::log;
use outrider_telemetry::metrics::Registry;
use tokio::sync::{mpsc, watch};

use self::end::{Ask, ended_early};
use self::serve::Servers;
use self::settings::{Settings, settings};
use crate::blocks::health;
use crate::blocks::invoke;
use crate::blocks::invoke::external::{self, Endpoint};
use crate::blocks::pubsub;
use crate::blocks::pubsub::subscribe::{self, Subscriber};
use crate::blocks::secrets;
use crate::blocks::shutdown;
use crate::blocks::shutdown::Asked;
use crate::blocks::state;
use crate::components::disk;
use crate::components::live::Live;
use crate::components::operator::{Operator, patiently};
use crate::components::reload::{Components, Endpoints, Policies, Reload, Restart, Subscriptions};
use crate::components::resolve::Sources;
use crate::components::start::Starter;
use crate::config;
use crate::edge::allow;
use crate::edge::cors;
use crate::edge::grpc;
use crate::edge::internal;
use crate::edge::log as calls;
use crate::edge::public;
use crate::edge::{self, Apis};
use crate::flags::{Flags, Mode, Protocol};
use outrider_call::channel::Channel;
use outrider_call::channel::connect::Connector;
use outrider_metrics::Metrics;
use outrider_net::server;
use outrider_net::server::phase::Leaving;
use outrider_peer::call::Peers;
use outrider_peer::reach::Sidecars;
use outrider_peer::serve::Callee;

mod application;
mod end;
mod host;
mod parts;
mod serve;
mod settings;

const SCOPE: &str = "dapr.runtime";

type Failure = Box<dyn StdError + Send + Sync>;

/// Why one life of the runtime ended.
enum End {
    Restart,
    Exit(ExitCode),
}

/// Runs the sidecar until it is told to end. A hangup starts it afresh in the
/// same process.
pub async fn run(flags: Flags) -> Result<ExitCode, Failure> {
    log::init(&log::Options {
        level: flags.log.level.clone(),
        json: flags.log.json,
        app_id: Some(flags.app_id.clone()),
        version: outrider_host::VERSION,
        file: flags.log.file.clone(),
    })?;
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
    resolver: Option<Arc<dyn Resolver>>,
    channel: Option<(Arc<Channel>, Connector)>,
    probes: Option<outrider_call::channel::health::Settings>,
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
    async fn start(
        flags: &Flags,
        folders: &disk::Folders,
        settings: Settings,
        tasks: Tasks,
        again: bool,
    ) -> Result<Self, Failure> {
        let readiness = Readiness::new();
        let secure = readiness.target("security-provider");
        let security = parts::secured(flags, &settings, &tasks).await?;
        secure.ready();
        let operator = match settings.mode {
            Mode::Standalone => None,
            Mode::Kubernetes => Some(Operator::new(
                &flags.control_plane.address,
                &security,
                &settings.namespace,
                &flags.app_id,
            )?),
        };
        let spec = match &operator {
            None => config::of_files(&flags.config, &flags.environment)?,
            Some(operator) => parts::config_of_operator(operator, &flags.config).await?,
        };
        let features = config::features(&spec);
        if !features.is_empty() {
            tracing::info!(target: SCOPE, "Enabled features: {}", features.join(" "));
        }
        if flags.control_plane.placement.is_empty() {
            tracing::info!(target: SCOPE, "Actor runtime disabled: no placement address was given");
        } else {
            tracing::warn!(target: SCOPE, "actors are not part of this release of Outrider: the placement address {} is not used", flags.control_plane.placement.join(","));
        }
        if flags.control_plane.scheduler.is_empty() {
            tracing::info!(target: SCOPE, "Scheduler disabled: no scheduler address was given");
        } else {
            tracing::warn!(target: SCOPE, "jobs are not part of this release of Outrider: the scheduler address {} is not used", flags.control_plane.scheduler.join(","));
        }
        let registry = Registry::new();
        if flags.metrics.enabled {
            let target = readiness.target("metrics-exporter");
            let (address, port) = (&flags.metrics.address, settings.metrics_port);
            outrider_host::metrics::serve(address, port, registry.clone(), &tasks)
                .await
                .map_err(|e| format!("failed to listen on {address}:{port}: {e}"))?;
            tracing::info!(target: SCOPE, "metrics server started on {address}:{port}/");
            target.ready();
        }
        let namespace = flags.namespace.as_deref().unwrap_or_default();
        let metrics = Metrics::new(&registry, &spec, &flags.app_id, namespace);
        metrics.identity(&registry, &flags.app_id, &security);
        let operator = operator.map(|operator| operator.counted(metrics.grpc_client()));
        tracing::info!(target: SCOPE, "{} mode configured", settings.mode.name());
        tracing::info!(target: SCOPE, "app id: {}", flags.app_id);
        let workers = Workers::start(flags.workers)?;
        let serving = tasks.child();

        let address = &flags.api.internal_address;
        let internal =
            host::internal_listener(settings.internal_port, address, &flags.app_id).await?;
        let internal_port = internal.local_addr()?.port();
        let host_address = host::address(flags.host_ip.as_deref())?;
        let announced = if host::is_loopback(address) {
            "127.0.0.1".to_owned()
        } else {
            host_address.clone()
        };
        tracing::info!(target: SCOPE, "Dapr trace sampler initialized: ParentBased(root=AlwaysOffSampler)");
        let context = Context {
            app_id: flags.app_id.clone(),
            namespace: flags.namespace.clone().unwrap_or_default(),
            host: announced,
            internal_port,
            environment: Arc::new(flags.environment.clone().into_iter().collect()),
        };
        let mut components = catalog::registry()?;
        let resolver =
            parts::resolver(&spec, settings.mode, &components, context.clone(), &metrics).await;

        let counted = metrics.resiliency(&registry, &flags.app_id);
        let resiliency = Resiliency::new(counted, serving.stopping());
        let live = Arc::new(Live::default());
        // In a pod the folder is a volume of its containers alone, which may
        // run as different users.
        let any_user = settings.mode == Mode::Kubernetes;
        catalog::discover(&mut components, &flags.sockets, any_user).await;
        let starter = Arc::new(Starter {
            registry: components,
            live: live.clone(),
            sources: Sources {
                app_id: flags.app_id.clone(),
                namespace: flags.namespace.clone(),
                environment: flags.environment.clone(),
                kubernetes: settings.mode == Mode::Kubernetes,
            },
            context,
            denied: spec
                .components
                .as_ref()
                .map(|c| c.deny.clone())
                .unwrap_or_default(),
            resiliency: resiliency.clone(),
            parked: Mutex::default(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        });
        let hot_reload = features.iter().any(|f| f == "HotReload");
        let lenient = again && hot_reload;
        if !lenient {
            folders.forget();
        }
        let resources = match &operator {
            None => folders
                .load()
                .map_err(|e| format!("failed to load components: {e}"))?,
            Some(operator) => {
                let listing = async || operator.resources().await;
                let mut resources = patiently("resources", listing).await?;
                if flags.builtin_secret_store {
                    resources.components.push(parts::builtin_store());
                }
                resources
            }
        };
        resiliency.replace(&resources.resiliencies);
        let failed = starter
            .all(resources.components.clone(), lenient)
            .await
            .map_err(|e| format!("failed to load components: {e}\n{e}"))?;
        let channel = parts::app_channel(flags, &settings, workers.slots(), &metrics)?;
        if channel.is_none() {
            tracing::warn!(target: SCOPE, "App channel is not initialized. Did you configure an app-port?");
        }
        let app = channel.as_ref().map(|(channel, _)| channel.clone());
        let subscriber = Subscriber::new(subscribe::Options {
            app_id: flags.app_id.clone(),
            brokers: live.pubsub.clone(),
            channel: app.clone(),
            asks: !flags.disable_init.iter().any(|n| n == "subscribe"),
            resiliency: resiliency.clone(),
            workers: workers.clone(),
            tasks: tasks.child(),
        });
        subscriber.declare(resources.subscriptions.clone());
        let (demand, demands) = mpsc::unbounded_channel();
        if hot_reload {
            let reload = Reload {
                components: Components::new(
                    starter.clone(),
                    subscriber.clone(),
                    resources.components,
                    failed,
                    flags.reconcile_interval,
                ),
                subscriptions: Subscriptions {
                    subscriber: subscriber.clone(),
                    loaded: resources.subscriptions,
                },
                endpoints: Endpoints(resources.http_endpoints.clone()),
                policies: Policies {
                    resiliency: resiliency.clone(),
                    loaded: resources.resiliencies,
                },
                demands: demand,
            };
            parts::follow(flags, &tasks, reload, operator.clone(), folders, &spec);
        }
        tracing::info!(target: SCOPE, "Loading endpoints\u{2026}");
        let pools = external::Pools::new(workers.slots(), flags.app.max_concurrency);
        for endpoint in resources.http_endpoints {
            tracing::info!(target: SCOPE, "Found http endpoint: {}", endpoint.metadata.name);
            let endpoint = Endpoint::new(endpoint, &starter.sources, &live, &pools).await;
            live.http_endpoints
                .insert(&endpoint.name.clone(), Arc::new(endpoint));
        }
        tracing::info!(target: SCOPE, "All outstanding http endpoints processed");

        let (ask, asked) = mpsc::unbounded_channel();
        let outbound = Readiness::new().target("outbound");
        let limit = flags.api.max_body;
        let sidecar_tls = if flags.control_plane.mtls {
            security.clone()
        } else {
            Security::plaintext()
        };
        let peers = Peers::new(
            sidecar_tls.clone(),
            &host_address,
            &host::name(),
            internal_port,
            limit,
            workers.slots(),
        );
        tasks.spawn(
            "peer connections",
            peers.collect(flags.peers.idle, flags.peers.interval, tasks.stopping()),
        );
        let apis = Arc::new(Apis {
            state: state::Api {
                app_id: flags.app_id.clone(),
                stores: live.state.clone(),
            },
            secrets: secrets::Api {
                stores: live.secrets.clone(),
                scopes: secrets::scope::parse(spec.secrets.as_ref())?,
            },
            pubsub: pubsub::Api {
                app_id: flags.app_id.clone(),
                brokers: live.pubsub.clone(),
                subscriber: subscriber.clone(),
            },
            invoke: invoke::Api {
                app_id: flags.app_id.clone(),
                namespace: settings.namespace.clone(),
                channel: app.clone(),
                sidecars: Sidecars {
                    peers,
                    resolver: resolver.clone(),
                },
                live: live.clone(),
                external: external::Client::new(&pools, &metrics),
                calls: metrics.calls(),
                resiliency: resiliency.clone(),
            },
            metadata: parts::about(
                flags,
                &settings,
                features,
                live.clone(),
                subscriber.clone(),
                resiliency,
            ),
            health: health::Api {
                app_id: flags.app_id.clone(),
                readiness: readiness.clone(),
                outbound: outbound.clone(),
            },
            shutdown: shutdown::Api { ask },
            http_metrics: metrics.http_server(),
            grpc_metrics: metrics.grpc_server(),
            cors: cors::Cors::new(&flags.api.allowed_origins),
            log: calls::Log::new(flags.api.logging, spec.logging.as_ref()),
            allowed: allow::Allowed::new(spec.api.as_ref())?,
            token: flags.api.token.clone(),
            max_body: limit,
        });

        let mut servers = Servers {
            flags,
            workers: workers.clone(),
            tasks: serving.clone(),
            leaving: Leaving::default(),
            sockets: Vec::new(),
        };
        let target = readiness.target("grpc-api-server");
        let headers = flags.api.read_buffer << 10;
        let protocol = server::Protocol {
            http1: false,
            http2: true,
            headers,
        };
        servers
            .open(
                grpc::Edge::new(apis.clone()),
                protocol,
                "gRPC",
                settings.grpc_port,
            )
            .await?;
        target.ready();
        let protocol = server::Protocol {
            http1: true,
            http2: flags.api.h2c,
            headers: flags.api.read_buffer,
        };
        servers
            .open(
                edge::http::Edge { apis: apis.clone() },
                protocol,
                "HTTP",
                settings.http_port,
            )
            .await?;
        if let Some(limit) = limit {
            tracing::info!(target: "dapr.runtime.http", "The request body size parameter is: {limit} bytes");
        }
        if let Some(port) = settings.public_port {
            let listener = listen::tcp(&flags.api.public_address, port)
                .await
                .map_err(|e| format!("listen tcp {}:{port}: {e}", flags.api.public_address))?;
            servers
                .server(public::Edge { apis: apis.clone() }, protocol)
                .listen(listener);
        }
        let target = readiness.target("grpc-internal-server");
        let callee = Arc::new(Callee {
            app_id: flags.app_id.clone().into(),
            channel: app,
            access: config::access(&spec)?,
            limit,
            calls: metrics.calls(),
        });
        let edge = internal::Edge {
            app_id: flags.app_id.as_str().into(),
            callee,
            metrics: metrics.clone(),
        };
        let acceptor = if flags.control_plane.mtls {
            security.acceptor(Clients::Required(Expected::Any))?
        } else {
            Acceptor::plaintext()
        };
        let protocol = server::Protocol {
            http1: false,
            http2: true,
            headers,
        };
        tracing::info!(target: "dapr.runtime.grpc.internal", "gRPC server listening on pre-bound TCP address: {}", internal.local_addr()?);
        servers
            .server(edge, protocol)
            .listen_tls(internal, acceptor);
        tracing::info!(target: SCOPE, "Internal gRPC server is running on {address}:{internal_port}");
        target.ready();
        outbound.ready();
        let ready = readiness.target("runtime");
        Ok(Self {
            tasks,
            serving,
            leaving: servers.leaving,
            live,
            subscriber,
            resolver,
            channel,
            probes: flags.app.probed.then(|| flags.app.probes.clone()),
            protocol: settings.protocol,
            ready,
            secure,
            asked,
            demands,
            health: watch::Sender::new(false),
            sockets: servers.sockets,
            app_id: flags.app_id.clone(),
            config_endpoint: !flags.disable_init.iter().any(|n| n == "config"),
            _workers: workers,
        })
    }

    /// Goes on beside the APIs.
    fn watch_app(&self, started: Instant) {
        let ready = self.ready.clone();
        let initialized = move || {
            tracing::info!(target: SCOPE, "dapr initialized. Status: Running. Init Elapsed {}ms", started.elapsed().as_millis());
            ready.ready();
        };
        let Some((channel, connector)) = self.channel.clone() else {
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
