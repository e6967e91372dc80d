//! The process, from its flags to its exit code.

use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outrider_catalog as catalog;
use outrider_components::Context;
use outrider_components::resolve::{Instance, Resolver};
use outrider_crds::Component;
use outrider_crds::configuration::Spec;
use outrider_host::signal::{Signal, Signals};
use outrider_host::{Readiness, Tasks, Workers, listen};
use outrider_kit::duration;
use outrider_security::identity::Key;
use outrider_security::{Acceptor, Clients, Expected, Security, anchors, token, user};
use outrider_telemetry::{log, metrics};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::api::log as calls;
use crate::api::pubsub::subscribe::{self, Subscriber};
use crate::api::shutdown::Asked;
use crate::api::{Apis, allow, cors, health, invoke, metadata, pubsub, secrets, shutdown, state};
use crate::channel::connect::Connector;
use crate::channel::{self, Channel, Healthy};
use crate::components::disk;
use crate::components::live::Live;
use crate::components::operator::Operator;
use crate::components::reload::{
    BUILTIN_STORE, Demand, Reload, Subscriptions, follow_configuration,
};
use crate::components::resolve::Sources;
use crate::components::start::Starter;
use crate::config;
use crate::flags::{Flags, Mode, Protocol};
use crate::peer::call::Peers;
use crate::peer::serve::Callee;
use crate::server::connection::{self, Handler, Server};
use crate::server::{grpc, http, internal, public};

mod application;
mod host;

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
    let mut signals = Signals::new()?;
    loop {
        match once(&flags, &mut signals)
            .await
            .map_err(|e| format!("Fatal error from runtime: {e}"))?
        {
            End::Restart => {}
            End::Exit(code) => return Ok(code),
        }
    }
}

/// Flags whose text makes sense.
struct Settings {
    mode: Mode,
    protocol: Protocol,
    app_port: u16,
    http_port: u16,
    grpc_port: u16,
    public_port: Option<u16>,
    internal_port: Option<u16>,
    metrics_port: u16,
    namespace: String,
}

fn settings(flags: &Flags) -> Result<Settings, Failure> {
    let port = |text: &str, name: &str| -> Result<u16, Failure> {
        text.parse::<i64>()
            .map_err(|_| {
                format!(
                    "error parsing {name}: strconv.Atoi: parsing {}: invalid syntax",
                    outrider_kit::quote::go(text)
                )
                .into()
            })
            .map(|n| u16::try_from(n).unwrap_or(u16::MAX))
    };
    let optional = |text: &str, name: &str| {
        (!text.is_empty() && text != "0")
            .then(|| port(text, name))
            .transpose()
    };
    let mode = match flags.mode.as_str() {
        "standalone" => Mode::Standalone,
        "kubernetes" => Mode::Kubernetes,
        other => return Err(format!("invalid mode: {other}").into()),
    };
    if mode == Mode::Standalone {
        if flags.app_id.is_empty() {
            return Err("parameter app-id cannot be empty".into());
        }
        if flags.app_id.contains('.') {
            return Err("parameter app-id cannot contain dots".into());
        }
    }
    let protocol = match (
        flags.app.protocol.to_ascii_lowercase().as_str(),
        flags.app.ssl,
    ) {
        ("" | "http", false) => Protocol::Http,
        ("" | "http", true) | ("https", _) => Protocol::Https,
        ("h2c", _) => Protocol::H2c,
        ("grpc", false) => Protocol::Grpc,
        ("grpc", true) | ("grpcs", _) => Protocol::Grpcs,
        _ => {
            return Err(format!("invalid value for 'app-protocol': {}", flags.app.protocol).into());
        }
    };
    let probes = &flags.app.health;
    if probes.timeout > probes.interval {
        return Err(
            "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'".into(),
        );
    }
    let settings = Settings {
        mode,
        protocol,
        app_port: if flags.app.port.is_empty() {
            0
        } else {
            port(&flags.app.port, "app-port")?
        },
        http_port: port(&flags.api.http_port, "dapr-http-port flag")?,
        grpc_port: port(&flags.api.grpc_port, "dapr-grpc-port flag")?,
        public_port: optional(&flags.api.public_port, "dapr-public-port")?,
        internal_port: optional(&flags.api.internal_port, "dapr-internal-grpc-port")?,
        metrics_port: port(&flags.metrics.port, "metrics-port flag")
            .map_err(|_| format!("failed to parse metrics port: {}", flags.metrics.port))?,
        namespace: flags
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
    };
    if settings.app_port != 0 {
        for (name, other) in [
            ("dapr-http-port", settings.http_port),
            ("dapr-grpc-port", settings.grpc_port),
        ] {
            if other == settings.app_port {
                return Err(format!(
                    "the '{name}' argument value {other} conflicts with 'app-port'"
                )
                .into());
            }
        }
    }
    Ok(settings)
}

/// One life: start, serve, drain. A signal ends it at any point.
async fn once(flags: &Flags, signals: &mut Signals) -> Result<End, Failure> {
    let started = Instant::now();
    let settings = settings(flags)?;
    user::refuse_root(settings.mode == Mode::Kubernetes, flags.skip_root_check)?;
    let tasks = Tasks::new();
    let runtime = tokio::select! {
        biased;
        signal = signals.next() => return ended_early(signal, &tasks).await,
        runtime = Runtime::start(flags, settings, tasks.clone()) => runtime,
    };
    let mut runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tasks.stop(Some(Duration::from_secs(1))).await;
            return Err(error);
        }
    };
    runtime.meet_the_application(started);
    let asked = tokio::select! {
        signal = signals.next() => Ask::Signal(signal),
        Some(asked) = runtime.asked.recv() => Ask::Api(asked),
        Some(demand) = runtime.demands.recv() => Ask::Resources(demand),
    };
    runtime.end(flags, signals, asked).await
}

enum Ask {
    Signal(Signal),
    Api(Asked),
    Resources(Demand),
}

async fn ended_early(signal: Signal, tasks: &Tasks) -> Result<End, Failure> {
    announce(signal);
    tasks.stop(Some(Duration::from_secs(1))).await;
    if signal == Signal::Hangup {
        return Ok(End::Restart);
    }
    tracing::info!(target: SCOPE, "Daprd shutdown gracefully");
    Ok(End::Exit(ExitCode::SUCCESS))
}

fn announce(signal: Signal) {
    let what = if signal == Signal::Hangup {
        "restarting"
    } else {
        "beginning shutdown"
    };
    tracing::info!(target: SCOPE, "Received signal '{}'; {what}", signal.name());
}

/// Everything that lives from start to end.
struct Runtime {
    tasks: Tasks,
    /// Listeners and connections, which end first.
    serving: Tasks,
    live: Arc<Live>,
    subscriber: Subscriber,
    resolver: Option<Arc<dyn Resolver>>,
    channel: Option<(Arc<Channel>, Connector)>,
    probes: Option<crate::flags::Health>,
    protocol: Protocol,
    ready: outrider_host::Target,
    secure: outrider_host::Target,
    asked: mpsc::UnboundedReceiver<Asked>,
    demands: mpsc::UnboundedReceiver<Demand>,
    /// Whether the application is healthy.
    health: watch::Sender<bool>,
    sockets: Vec<std::path::PathBuf>,
    app_id: String,
    config_endpoint: bool,
    // Dropped last: the threads that everything above runs on.
    _workers: Workers,
}

impl Runtime {
    async fn start(flags: &Flags, settings: Settings, tasks: Tasks) -> Result<Self, Failure> {
        let readiness = Readiness::new();
        let secure = readiness.target("security-provider");
        let security = secured(flags, &settings, &tasks).await?;
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
            Some(operator) => config_of_operator(operator, &flags.config).await?,
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
        let registry = metrics::Registry::new();
        if flags.metrics.enabled {
            let target = readiness.target("metrics-exporter");
            let (address, port) = (&flags.metrics.address, settings.metrics_port);
            outrider_host::metrics::serve(address, port, registry.clone(), &tasks)
                .await
                .map_err(|e| format!("failed to listen on {address}:{port}: {e}"))?;
            tracing::info!(target: SCOPE, "metrics server started on {address}:{port}/");
            target.ready();
        }
        tracing::info!(target: SCOPE, "{} mode configured", settings.mode.name());
        tracing::info!(target: SCOPE, "app id: {}", flags.app_id);
        let workers = Workers::start()?;
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
        let instance = Instance {
            app_id: flags.app_id.clone(),
            namespace: settings.namespace.clone(),
            host: announced,
            port: internal_port,
        };
        let resolver = resolver(&spec, settings.mode, instance).await;

        let live = Arc::new(Live::default());
        let starter = Arc::new(Starter {
            registry: catalog::registry()?,
            live: live.clone(),
            sources: Sources {
                app_id: flags.app_id.clone(),
                namespace: flags.namespace.clone(),
                environment: flags.environment.clone(),
                kubernetes: settings.mode == Mode::Kubernetes,
            },
            context: Context {
                app_id: flags.app_id.clone(),
                namespace: flags.namespace.clone().unwrap_or_default(),
                environment: Arc::new(flags.environment.clone().into_iter().collect()),
            },
            denied: spec
                .components
                .as_ref()
                .map(|c| c.deny.clone())
                .unwrap_or_default(),
            parked: Mutex::default(),
        });
        let resources = match &operator {
            None => disk::load(
                &flags.resources,
                disk::Filter {
                    app_id: &flags.app_id,
                    namespace: flags.namespace.as_deref(),
                },
            )
            .map_err(|e| format!("failed to load components: {e}"))?,
            Some(operator) => {
                let mut resources = operator.resources().await?;
                if flags.builtin_secret_store {
                    resources.components.push(builtin_store());
                }
                resources
            }
        };
        let loaded = resources
            .components
            .iter()
            .map(|c| (c.metadata.name.clone(), c.clone()))
            .collect();
        starter
            .all(resources.components)
            .await
            .map_err(|e| format!("failed to load components: {e}\n{e}"))?;
        let channel = app_channel(flags, &settings, workers.len())?;
        if channel.is_none() {
            tracing::warn!(target: SCOPE, "App channel is not initialized. Did you configure an app-port?");
        }
        let app = channel.as_ref().map(|(channel, _)| channel.clone());
        let subscriber = Subscriber::new(subscribe::Options {
            app_id: flags.app_id.clone(),
            brokers: live.pubsub.clone(),
            channel: app.clone(),
            asks: !flags.disable_init.iter().any(|n| n == "subscribe"),
            workers: workers.clone(),
            tasks: tasks.child(),
        });
        subscriber.declare(resources.subscriptions.clone());
        let (demand, demands) = mpsc::unbounded_channel();
        if features.iter().any(|f| f == "HotReload") {
            let reload = Reload {
                starter: starter.clone(),
                loaded,
                subscriptions: Subscriptions {
                    subscriber: subscriber.clone(),
                    loaded: resources.subscriptions,
                },
                demands: demand.clone(),
                stopping: tasks.stopping(),
                interval: flags.reconcile_interval,
            };
            follow(flags, &tasks, reload, operator.clone(), &spec, demand);
        }
        tracing::info!(target: SCOPE, "Loading endpoints\u{2026}");
        for endpoint in resources.http_endpoints {
            tracing::info!(target: SCOPE, "Found http endpoint: {}", endpoint.metadata.name);
            live.http_endpoints
                .insert(&endpoint.metadata.name.clone(), Arc::new(endpoint));
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
                peers: Peers::new(
                    sidecar_tls.clone(),
                    &host_address,
                    &host::name(),
                    internal_port,
                    limit,
                    workers.len(),
                ),
                resolver: resolver.clone(),
                live: live.clone(),
                external: invoke::external::Client,
            },
            metadata: about(flags, &settings, features, live.clone(), subscriber.clone()),
            health: health::Api {
                app_id: flags.app_id.clone(),
                readiness: readiness.clone(),
                outbound: outbound.clone(),
            },
            shutdown: shutdown::Api { ask },
            cors: cors::Cors::new(&flags.api.allowed_origins),
            log: calls::Log::new(flags.api.logging, spec.logging.as_ref()),
            allowed: allow::Allowed::new(spec.api.as_ref()),
            token: flags.api.token.clone(),
            max_body: limit,
        });

        let mut servers = Servers {
            flags,
            workers: workers.clone(),
            tasks: serving.clone(),
            sockets: Vec::new(),
        };
        let target = readiness.target("grpc-api-server");
        let headers = flags.api.read_buffer << 10;
        let protocol = connection::Protocol {
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
        let protocol = connection::Protocol {
            http1: true,
            http2: flags.api.h2c,
            headers: flags.api.read_buffer,
        };
        servers
            .open(
                http::Edge { apis: apis.clone() },
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
            channel: app,
            access: config::access(&spec)?,
            limit,
        });
        let edge = internal::Edge {
            app_id: flags.app_id.as_str().into(),
            callee,
        };
        let acceptor = if flags.control_plane.mtls {
            security.acceptor(Clients::Required(Expected::Any))?
        } else {
            Acceptor::plaintext()
        };
        let protocol = connection::Protocol {
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
            live,
            subscriber,
            resolver,
            channel,
            probes: flags.app.health.enabled.then(|| flags.app.health.clone()),
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
    fn meet_the_application(&self, started: Instant) {
        let ready = self.ready.clone();
        let initialized = move || {
            tracing::info!(target: SCOPE, "dapr initialized. Status: Running. Init Elapsed {}ms", started.elapsed().as_millis());
            ready.ready();
        };
        let Some((channel, connector)) = self.channel.clone() else {
            initialized();
            return;
        };
        let meeting = application::Meeting {
            channel,
            connector,
            protocol: self.protocol,
            probes: self.probes.clone(),
            told: self.health.clone(),
            app_id: self.app_id.clone(),
            asks_config: self.config_endpoint,
            subscriber: self.subscriber.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn("application", meeting.run(initialized));
    }

    async fn end(
        mut self,
        flags: &Flags,
        signals: &mut Signals,
        asked: Ask,
    ) -> Result<End, Failure> {
        let mut fatal = None;
        let restart = match asked {
            Ask::Resources(Demand::Restart) => true,
            Ask::Resources(Demand::Fatal(text)) => {
                fatal = Some(text);
                false
            }
            Ask::Signal(signal) => {
                announce(signal);
                signal == Signal::Hangup
            }
            Ask::Api(Asked::Graceful) => {
                tracing::info!(target: SCOPE, "Shutdown requested via API");
                false
            }
            Ask::Api(Asked::Forced) => {
                tracing::warn!(target: SCOPE, "Force shutdown requested, exiting immediately without graceful shutdown");
                // The answer to the request goes out first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return Ok(End::Exit(ExitCode::FAILURE));
            }
        };
        if let Some(block) = flags.shutdown.block.filter(|_| !restart) {
            self.secure.not_ready();
            if let Some(signal) = self.block(block, signals).await {
                return Ok(impatient(signal));
            }
        }
        if flags.shutdown.grace.is_none() {
            tracing::warn!(target: SCOPE, "Graceful shutdown timeout is infinite, will wait indefinitely to shutdown");
        }
        let finished = tokio::select! {
            signal = signals.shutdown() => return Ok(impatient(signal)),
            finished = self.drain(flags.shutdown.grace) => finished,
        };
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
        if !finished {
            log::fatal(
                SCOPE,
                "Graceful shutdown timeout exceeded, forcing shutdown",
            );
            return Ok(End::Exit(ExitCode::FAILURE));
        }
        if let Some(text) = fatal {
            return Err(text.into());
        }
        if restart {
            return Ok(End::Restart);
        }
        tracing::info!(target: SCOPE, "Daprd shutdown gracefully");
        Ok(End::Exit(ExitCode::SUCCESS))
    }

    /// Goes on serving for a while. Returns the signal that cut it short.
    async fn block(&mut self, block: Duration, signals: &mut Signals) -> Option<Signal> {
        tracing::info!(target: SCOPE, "Blocking graceful shutdown for {} or until app reports unhealthy...", duration::format(block));
        self.subscriber.finish();
        let mut health = self.health.subscribe();
        let probing = self.probes.is_some();
        let unhealthy = async {
            if !probing || health.wait_for(|healthy| !healthy).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            signal = signals.shutdown() => return Some(signal),
            () = tokio::time::sleep(block) => tracing::info!(target: SCOPE, "Block shutdown period expired, entering shutdown..."),
            () = unhealthy => tracing::info!(target: SCOPE, "App reported unhealthy, entering shutdown..."),
        }
        None
    }

    /// Ends what is left, within one deadline for all of it.
    async fn drain(&mut self, grace: Option<Duration>) -> bool {
        let work = async {
            tracing::info!(target: SCOPE, "Dapr is shutting down");
            if let Some(resolver) = &self.resolver
                && let Err(error) = resolver.close().await
            {
                tracing::warn!(target: SCOPE, "error closing name resolver: {error}");
            }
            self.subscriber.end().await;
            self.serving.stop(None).await;
            self.live.close().await;
            self.tasks.stop(None).await;
            tracing::info!(target: SCOPE, "Dapr runtime stopped");
        };
        match grace {
            None => {
                work.await;
                true
            }
            Some(grace) => tokio::time::timeout(grace, work).await.is_ok(),
        }
    }
}

fn impatient(signal: Signal) -> End {
    log::fatal(
        SCOPE,
        &format!(
            "Received signal '{}' during shutdown; exiting immediately",
            signal.name()
        ),
    );
    End::Exit(ExitCode::FAILURE)
}

async fn secured(flags: &Flags, settings: &Settings, tasks: &Tasks) -> Result<Security, Failure> {
    let plane = &flags.control_plane;
    if !plane.mtls && settings.mode == Mode::Standalone {
        return Ok(Security::disabled());
    }
    let kubernetes = settings.mode == Mode::Kubernetes;
    let options = outrider_security::Options {
        app_id: plane
            .local_identity
            .clone()
            .unwrap_or_else(|| flags.app_id.clone()),
        namespace: settings.namespace.clone(),
        control_plane: outrider_security::ControlPlane {
            trust_domain: plane.trust_domain.parse()?,
            namespace: plane.namespace.clone(),
        },
        anchors: anchors::Source::Text(plane.trust_anchors.clone().unwrap_or_default()),
        sentry_address: plane.sentry.clone(),
        token: token::Source::choose(kubernetes, plane.token_file.clone())?,
        key: Key::Ed25519,
        jwt_audiences: plane.jwt_audiences.clone(),
        directory: None,
    };
    let (security, upkeep) = Security::start(options).await?;
    let stopping = tasks.stopping();
    tasks.spawn("identity", upkeep.run(stopping));
    Ok(security)
}

/// The Configuration that the annotation names; further names mean nothing.
async fn config_of_operator(operator: &Operator, names: &[String]) -> Result<Spec, Failure> {
    let Some((name, rest)) = names.split_first() else {
        tracing::info!(target: SCOPE, "loading default configuration");
        return Ok(Spec::default());
    };
    if !rest.is_empty() {
        tracing::warn!(target: SCOPE, "only one Configuration is used in Kubernetes: {name}");
    }
    Ok(operator.configuration(name).await?)
}

/// The secret store that every sidecar in Kubernetes has.
fn builtin_store() -> Component {
    let mut component = Component::default();
    component.metadata.name = BUILTIN_STORE.to_owned();
    component.spec.component_type = "secretstores.kubernetes".to_owned();
    component.spec.version = "v1".to_owned();
    component
}

/// Follows the source of resources for as long as the process lives.
fn follow(
    flags: &Flags,
    tasks: &Tasks,
    reload: Reload,
    operator: Option<Operator>,
    spec: &Spec,
    demand: mpsc::UnboundedSender<Demand>,
) {
    match operator {
        Some(operator) => {
            if let Some(name) = flags.config.first() {
                let following = follow_configuration(
                    operator.clone(),
                    name.clone(),
                    spec.clone(),
                    demand,
                    tasks.stopping(),
                );
                tasks.spawn("configuration updates", following);
            }
            let subscriptions = reload.subscriptions.clone();
            let following = subscriptions.follow_operator(operator.clone(), tasks.stopping());
            tasks.spawn("subscription updates", following);
            tasks.spawn("component updates", reload.follow_operator(operator));
        }
        None if flags.resources.is_empty() => {}
        None => {
            let (folders, app_id) = (flags.resources.clone(), flags.app_id.clone());
            let namespace = flags.namespace.clone();
            tasks.spawn(
                "resource files",
                reload.follow_files(folders, app_id, namespace),
            );
        }
    }
}

/// A resolver that cannot be made is told about; only invocation needs it.
async fn resolver(spec: &Spec, mode: Mode, instance: Instance) -> Option<Arc<dyn Resolver>> {
    let given = spec.name_resolution.clone().unwrap_or_default();
    let kind = match given.component.as_str() {
        "" if mode == Mode::Kubernetes => "kubernetes",
        "" => "mdns",
        named => named,
    };
    match catalog::resolver(kind, &given.configuration, instance).await {
        Ok(resolver) => {
            tracing::info!(target: SCOPE, "Initialized name resolution to {kind}");
            Some(resolver)
        }
        Err(error) => {
            tracing::error!(target: SCOPE, "Failed to init name resolution: {error}");
            None
        }
    }
}

fn app_channel(
    flags: &Flags,
    settings: &Settings,
    workers: usize,
) -> Result<Option<(Arc<Channel>, Connector)>, Failure> {
    if settings.app_port == 0 {
        return Ok(None);
    }
    let protocol = settings.protocol;
    let alpn: &[&[u8]] = if protocol.is_grpc() {
        &[b"h2"]
    } else {
        &[b"http/1.1"]
    };
    let connector = Connector::new(
        &flags.app.address,
        settings.app_port,
        protocol.is_tls(),
        alpn,
    )?;
    let token = flags.app.token.as_deref();
    let kind = if protocol.is_grpc() {
        channel::Kind::Grpc(channel::grpc::Client::new(
            connector.clone(),
            token,
            flags.api.max_body,
            workers,
        ))
    } else {
        let (tls, h2c) = (protocol.is_tls(), protocol == Protocol::H2c);
        channel::Kind::Http(channel::http::Client::new(
            connector.clone(),
            tls,
            h2c,
            token,
            flags.api.read_buffer,
            workers,
        ))
    };
    if let Some(most) = flags.app.max_concurrency {
        tracing::info!(target: SCOPE, "app max concurrency set to {most}");
    }
    let channel = Channel {
        kind,
        limit: flags
            .app
            .max_concurrency
            .map(|most| Arc::new(Semaphore::new(most))),
        healthy: Arc::new(Healthy::default()),
    };
    Ok(Some((Arc::new(channel), connector)))
}

fn about(
    flags: &Flags,
    settings: &Settings,
    features: Vec<String>,
    live: Arc<Live>,
    subscriber: Subscriber,
) -> metadata::Api {
    let probes = &flags.app.health;
    metadata::Api {
        app_id: flags.app_id.clone(),
        features,
        live,
        subscriber,
        app: metadata::App {
            port: settings.app_port,
            protocol: settings.protocol.name(),
            address: flags.app.address.clone(),
            max_concurrency: flags.app.max_concurrency.unwrap_or(0),
            health: probes.enabled.then(|| metadata::Health {
                path: (!settings.protocol.is_grpc()).then(|| probes.path.clone()),
                interval: duration::format(probes.interval),
                timeout: duration::format(probes.timeout),
                threshold: probes.threshold,
            }),
        },
        extended: Default::default(),
    }
}

/// Opens the listeners of the APIs.
struct Servers<'a> {
    flags: &'a Flags,
    workers: Workers,
    tasks: Tasks,
    sockets: Vec<std::path::PathBuf>,
}

impl Servers<'_> {
    fn server<H: Handler>(&self, handler: H, protocol: connection::Protocol) -> Server<H> {
        Server {
            handler,
            protocol,
            workers: self.workers.clone(),
            tasks: self.tasks.clone(),
        }
    }

    async fn open<H: Handler>(
        &mut self,
        handler: H,
        protocol: connection::Protocol,
        name: &str,
        port: u16,
    ) -> Result<(), Failure> {
        let server = self.server(handler, protocol);
        let shown = if name == "HTTP" {
            "HTTP server"
        } else {
            "API gRPC server"
        };
        if let Some(folder) = &self.flags.api.socket_folder {
            let path = folder.join(format!(
                "dapr-{}-{}.socket",
                self.flags.app_id,
                name.to_lowercase()
            ));
            let listener = host::unix_listener(&path).map_err(|e| {
                format!(
                    "failed to start {shown}: listen unix {}: {e}",
                    path.display()
                )
            })?;
            server.listen_unix(listener);
            self.sockets.push(path);
            tracing::info!(target: SCOPE, "{shown} is running on a Unix Domain Socket");
            return Ok(());
        }
        let mut addresses: Vec<&str> = self.flags.api.addresses.iter().map(|a| a.trim()).collect();
        if addresses.is_empty() {
            addresses.push("");
        }
        let listeners = futures_util::future::join_all(
            addresses
                .iter()
                .map(|address| listen::tcp_patient(address, port)),
        )
        .await;
        let mut open = 0;
        for (address, listener) in addresses.iter().zip(listeners) {
            match listener {
                Ok(listener) => {
                    if name == "gRPC" {
                        tracing::info!(target: "dapr.runtime.grpc.api", "gRPC server listening on TCP address: {address}:{port}");
                    }
                    server.listen(listener);
                    open += 1;
                }
                Err(error) => {
                    tracing::error!(target: SCOPE, "Failed to listen for {name} server on TCP address {address}:{port} with error: {error}");
                }
            }
        }
        if open == 0 {
            return Err(
                format!("failed to start {shown}: could not listen on any endpoint").into(),
            );
        }
        tracing::info!(target: SCOPE, "{shown} is running on port {port}");
        Ok(())
    }
}

/// `daprd --wait`: polls a running sidecar. Unlike the reference, the exit
/// code tells how it went.
pub fn wait_for_outbound(port: &str) -> ExitCode {
    host::wait_for_outbound(port)
}
