//! The start of the sidecar, step by step.

mod apis;
mod triggers;

use std::sync::{Arc, Mutex};

use outrider_call::channel::Channel;
use outrider_call::channel::connect::Connector;
use outrider_catalog as catalog;
use outrider_components::resolve::Resolver;
use outrider_components::{Context, Registry as ComponentRegistry};
use outrider_crds::configuration::Spec;
use outrider_crds::{Component, HttpEndpoint, Subscription};
use outrider_host::{Readiness, Target, Tasks, Workers};
use outrider_metrics::Metrics;
use outrider_net::server::phase::Leaving;
use outrider_peer::call::Peers;
use outrider_resiliency::Resiliency;
use outrider_scheduler_client::Scheduler;
use outrider_security::Security;
use outrider_telemetry::metrics::Registry;
use outrider_trace::Tracer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::apis::Parts;
use super::middleware::Pipelines;
use super::serve::Servers;
use super::settings::Settings;
use super::{Failure, Runtime, SCOPE, actors, host, jobs, parts};
use crate::blocks::bindings::read::{self, Readers};
use crate::blocks::configuration::subscriptions::Subscriptions;
use crate::blocks::pubsub::subscribe::{self, Subscriber};
use crate::blocks::{Components, bindings};
use crate::components::live::Live;
use crate::components::resolve::Sources;
use crate::components::start::Starter;
use crate::config;
use crate::flags::{Flags, Mode};
use crate::resources::disk::Folders;
use crate::resources::follow::Restart;
use crate::resources::operator::reports::Reports;
use crate::resources::operator::{Operator, retry_until_answered};
use crate::resources::pipeline::{self, Appliers, Pipeline};
use crate::resources::{
    Resources, component, configuration, http_endpoint, resiliency, subscription,
};

/// What every step of the start needs.
struct Start<'a> {
    flags: &'a Flags,
    settings: &'a Settings,
    folders: &'a Folders,
    tasks: &'a Tasks,
    readiness: Readiness,
}

/// Components and what they are made with.
struct Blocks {
    components: Components,
    live: Arc<Live>,
    starter: Arc<Starter>,
    resiliency: Resiliency,
    resolver: Option<Arc<dyn Resolver>>,
}

/// The listener that other sidecars call, and where it is.
struct Internal {
    listener: TcpListener,
    port: u16,
    /// This host's address, as others reach it.
    host: String,
}

impl Internal {
    /// Where others reach it that listens at `bound`.
    fn address(&self, bound: &str) -> String {
        // Only processes of this machine reach a loopback address.
        match host::is_loopback(bound) {
            true => actors::address(bound, self.port),
            false => actors::address(&self.host, self.port),
        }
    }
}

/// Resources as they were at the start, with what uses their policies.
struct Loaded {
    policies: resiliency::Applier,
    components: Vec<Component>,
    /// Those of the components that could not be started.
    failed: Vec<Component>,
    http_endpoints: Vec<HttpEndpoint>,
}

/// The application's side.
struct Application {
    channel: Option<(Arc<Channel>, Connector)>,
    subscriber: Subscriber,
    tracer: Tracer,
    readers: Readers,
    configuration: Subscriptions,
    pipelines: Pipelines,
}

impl Application {
    /// Has the subscriptions of resources served.
    fn declare(&self, blocks: &Blocks, listed: Vec<Subscription>) -> subscription::Applier {
        let status = blocks.live.status.clone();
        subscription::Applier::new(self.subscriber.clone(), status, listed)
    }

    fn channel(&self) -> Option<Arc<Channel>> {
        self.channel.as_ref().map(|(channel, _)| channel.clone())
    }
}

/// What there is before anything is served.
struct Prepared {
    security: Security,
    secure: Target,
    spec: Spec,
    features: Vec<String>,
    registry: Registry,
    metrics: Metrics,
    workers: Workers,
    /// Ends what is served.
    serving: Tasks,
    internal: Internal,
    blocks: Blocks,
    app: Application,
    http_endpoints: Vec<HttpEndpoint>,
    demands: mpsc::UnboundedReceiver<Restart>,
}

impl Runtime {
    /// Starts everything. One that starts `again`, after a restart, does not
    /// end because of a component.
    pub async fn start(
        flags: &Flags,
        folders: &Folders,
        settings: Settings,
        tasks: Tasks,
        again: bool,
    ) -> Result<Self, Failure> {
        let start = Start {
            flags,
            settings: &settings,
            folders,
            tasks: &tasks,
            readiness: Readiness::new(),
        };
        let made = start.prepare(again).await?;
        let (security, metrics, workers) = (&made.security, &made.metrics, &made.workers);
        let peers = start.peers(security, &made.internal, workers);
        let scheduler = start.scheduler(&made)?;
        let (actors, app_actors) = start.actors(&made, peers.clone(), &scheduler)?;
        let endpoints = made.http_endpoints.clone();
        let invoke = start.invoke(&made.blocks, &made.app, metrics, workers, peers, endpoints);
        let invoke = invoke.await;
        let (ask, asked) = mpsc::unbounded_channel();
        let triggers = start.triggers(&made, &scheduler, &actors.actors);
        let parts = Parts {
            features: made.features,
            invoke,
            scheduler,
            actors,
            timers: triggers.timers,
            reminders: triggers.reminders,
            ask,
        };
        let apis = start.apis(&made.spec, metrics, &made.blocks, &made.app, parts)?;
        let mut servers = start.servers(workers, &made.serving);
        servers.open_apis(&settings, &apis).await?;
        let callee = start.callee(&made.spec, &made.app, metrics)?;
        let actors = actors::callee(&apis.blocks.actors, made.app.tracer.clone());
        servers.open_internal(made.internal.listener, callee, actors, metrics, security)?;
        apis.blocks.health.outbound.ready();
        Ok(Self {
            ready: start.readiness.target("runtime"),
            serving: made.serving,
            leaving: servers.leaving,
            live: made.blocks.live,
            subscriber: made.app.subscriber,
            readers: made.app.readers,
            configuration: made.app.configuration,
            jobs: triggers.jobs,
            actors: app_actors,
            resolver: made.blocks.resolver,
            channel: made.app.channel,
            probes: flags.app.probed.then(|| flags.app.probes.clone()),
            protocol: settings.protocol,
            secure: made.secure,
            asked,
            demands: made.demands,
            health: watch::Sender::new(false),
            sockets: servers.sockets,
            app_id: flags.app_id.clone(),
            config_endpoint: !flags.disable_init.iter().any(|n| n == "config"),
            _workers: made.workers,
            tasks,
        })
    }
}

impl Start<'_> {
    /// Who this sidecar is, its Configuration, its resources, and the application's
    /// side of it.
    async fn prepare(&self, again: bool) -> Result<Prepared, Failure> {
        let (flags, settings) = (self.flags, self.settings);
        let secure = self.readiness.target("security-provider");
        let security = parts::secured(flags, settings, self.tasks).await?;
        secure.ready();
        let (operator, spec) = self.configuration(&security).await?;
        let features = self.features(&spec);
        let (registry, metrics) = self.metrics(&spec, &security).await?;
        let operator = operator.map(|operator| operator.counted(metrics.grpc_client()));
        tracing::info!(target: SCOPE, "{} mode configured", settings.mode.name());
        tracing::info!(target: SCOPE, "app id: {}", flags.app_id);
        let workers = Workers::start(flags.workers)?;
        let serving = self.tasks.child();
        let internal = self.internal().await?;
        let tracer = self.tracer(&spec, &registry, &metrics)?;
        let counted = metrics.resiliency(&registry, &flags.app_id);
        let resiliency = Resiliency::new(counted, serving.stopping());
        let blocks = self.blocks(&spec, &metrics, resiliency, &internal).await?;

        let hot_reload = features.iter().any(|feature| feature == "HotReload");
        let lenient = again && hot_reload;
        let resources = self.resources(operator.as_ref(), lenient).await?;
        let http_endpoints = resources.http_endpoints.clone();
        let subscriptions = resources.subscriptions.clone();
        let loaded = self.load(&blocks, resources, lenient).await?;
        let pipelines = Pipelines::new(&spec, &blocks.components, &blocks.live, self.tasks);
        let app = self.application(&blocks, &metrics, &workers, tracer, pipelines)?;
        let (demand, demands) = mpsc::unbounded_channel();
        let subscriptions = app.declare(&blocks, subscriptions);
        if hot_reload {
            let appliers = self.appliers(&blocks, &app, loaded, subscriptions, operator.as_ref());
            self.follow(&blocks, appliers, operator, &spec, demand);
        }
        Ok(Prepared {
            security,
            secure,
            spec,
            features,
            registry,
            metrics,
            workers,
            serving,
            internal,
            blocks,
            app,
            http_endpoints,
            demands,
        })
    }

    /// Follows the source of resources for as long as the process lives.
    fn follow(
        &self,
        blocks: &Blocks,
        appliers: Appliers,
        operator: Option<Operator>,
        spec: &Spec,
        demands: mpsc::UnboundedSender<Restart>,
    ) {
        let pipeline = Pipeline {
            status: blocks.live.status.clone(),
            demands,
            tasks: self.tasks.clone(),
        };
        let components = self.components();
        match operator {
            Some(operator) => {
                if let Some(name) = self.flags.config.first() {
                    let status = pipeline.status.clone();
                    let applier = configuration::Applier::new(name.clone(), spec.clone(), status);
                    let named = configuration::Named(name.clone());
                    pipeline.follow_configuration(&operator, named, applier);
                }
                pipeline.follow_operator(&operator, components, appliers);
            }
            None if self.flags.resources.is_empty() => {}
            None => pipeline.follow_files(self.folders.clone(), &components, appliers),
        }
    }

    /// Where resources come from in Kubernetes, and the Configuration.
    async fn configuration(
        &self,
        security: &Security,
    ) -> Result<(Option<Operator>, Spec), Failure> {
        let flags = self.flags;
        if self.settings.mode == Mode::Standalone {
            let spec = config::of_files(&flags.config, &flags.environment)?;
            return Ok((None, spec));
        }
        let operator = Operator::new(
            &flags.control_plane.address,
            security,
            &self.settings.namespace,
            &flags.app_id,
        )?;
        let spec = parts::config_of_operator(&operator, &flags.config).await?;
        Ok((Some(operator), spec))
    }

    /// The features that are on. What this release does not have is logged.
    fn features(&self, spec: &Spec) -> Vec<String> {
        let features = config::features(spec);
        if !features.is_empty() {
            tracing::info!(target: SCOPE, "Enabled features: {}", features.join(" "));
        }
        features
    }

    /// What is counted, and the listener that serves it.
    async fn metrics(
        &self,
        spec: &Spec,
        security: &Security,
    ) -> Result<(Registry, Metrics), Failure> {
        let flags = self.flags;
        let registry = Registry::new();
        if flags.metrics.enabled {
            let target = self.readiness.target("metrics-exporter");
            let (address, port) = (&flags.metrics.address, self.settings.metrics_port);
            outrider_host::metrics::serve(address, port, registry.clone(), self.tasks)
                .await
                .map_err(|e| format!("failed to listen on {address}:{port}: {e}"))?;
            tracing::info!(target: SCOPE, "metrics server started on {address}:{port}/");
            target.ready();
        }
        let namespace = flags.namespace.as_deref().unwrap_or_default();
        let metrics = Metrics::new(&registry, spec, &flags.app_id, namespace);
        metrics.identity(&registry, &flags.app_id, security);
        Ok((registry, metrics))
    }

    /// What makes spans, with the tasks that send them.
    fn tracer(
        &self,
        spec: &Spec,
        registry: &Registry,
        metrics: &Metrics,
    ) -> Result<Tracer, Failure> {
        let (app_id, environment) = (&self.flags.app_id, &self.flags.environment);
        let settings = outrider_trace::Settings::read(spec.tracing.as_ref(), app_id, environment)
            .map_err(|e| format!("failed to setup tracing: {e}"))?;
        tracing::info!(target: SCOPE, "Dapr trace sampler initialized: {}", settings.sampler);
        let (tracer, exporting) = settings.start(self.tasks);
        metrics.spans(registry, app_id, move || {
            let counts = exporting.counts().into_iter();
            counts.map(|c| (c.exporter, c.sent, c.dropped)).collect()
        });
        Ok(tracer)
    }

    async fn internal(&self) -> Result<Internal, Failure> {
        let flags = self.flags;
        let address = &flags.api.internal_address;
        let listener =
            host::internal_listener(self.settings.internal_port, address, &flags.app_id).await?;
        Ok(Internal {
            port: listener.local_addr()?.port(),
            listener,
            host: host::address(flags.host_ip.as_deref())?,
        })
    }

    /// What components are made with; none is in use yet.
    async fn blocks(
        &self,
        spec: &Spec,
        metrics: &Metrics,
        resiliency: Resiliency,
        internal: &Internal,
    ) -> Result<Blocks, Failure> {
        let flags = self.flags;
        let in_kubernetes = self.settings.mode == Mode::Kubernetes;
        let context = Context {
            app_id: flags.app_id.clone(),
            namespace: flags.namespace.clone().unwrap_or_default(),
            host: match host::is_loopback(&flags.api.internal_address) {
                true => "127.0.0.1".to_owned(),
                false => internal.host.clone(),
            },
            internal_port: internal.port,
            http_port: self.settings.http_port,
            app_port: Some(self.settings.app_port).filter(|port| *port != 0),
            environment: Arc::new(flags.environment.clone().into_iter().collect()),
        };
        let mut registry: ComponentRegistry = catalog::registry()?;
        let mode = self.settings.mode;
        let resolver = parts::resolver(spec, mode, &registry, context.clone(), metrics).await;
        // In a pod the folder is a volume of its containers alone, which may
        // run as different users.
        catalog::discover(&mut registry, &flags.sockets, in_kubernetes).await;
        let components = Components::default();
        let live = Arc::new(components.live());
        let denied = spec.components.as_ref().map(|c| c.deny.clone());
        let starter = Starter {
            registry,
            live: live.clone(),
            sources: Sources {
                app_id: flags.app_id.clone(),
                namespace: flags.namespace.clone(),
                environment: flags.environment.clone(),
                kubernetes: in_kubernetes,
            },
            context,
            denied: denied.unwrap_or_default(),
            resiliency: resiliency.clone(),
            strict_wasm: spec.wasm.as_ref().is_some_and(|wasm| wasm.strict_sandbox),
            parked: Mutex::default(),
            metrics: metrics.clone(),
            tasks: self.tasks.clone(),
        };
        Ok(Blocks {
            components,
            live,
            starter: Arc::new(starter),
            resiliency,
            resolver,
        })
    }

    /// All resources, from files or from the operator.
    async fn resources(
        &self,
        operator: Option<&Operator>,
        lenient: bool,
    ) -> Result<Resources, Failure> {
        if !lenient {
            self.folders.forget();
        }
        let Some(operator) = operator else {
            let loaded = self.folders.load();
            return Ok(loaded.map_err(|e| format!("failed to load components: {e}"))?);
        };
        let components = self.components();
        let listing = async || pipeline::listed(operator, &components).await;
        Ok(retry_until_answered("resources", listing).await?)
    }

    /// What components are wanted besides those of resources, and how often
    /// all are compared.
    fn components(&self) -> component::Components {
        component::Components {
            interval: self.flags.reconcile_interval,
            has_builtin_store: self.flags.builtin_secret_store,
        }
    }

    /// Brings policies and components into use.
    async fn load(
        &self,
        blocks: &Blocks,
        resources: Resources,
        lenient: bool,
    ) -> Result<Loaded, Failure> {
        let (policies, status) = (blocks.resiliency.clone(), blocks.live.status.clone());
        let policies = resiliency::Applier::new(policies, status, resources.resiliencies);
        let components = resources.components;
        let loading = blocks.starter.all(components.clone(), lenient).await;
        Ok(Loaded {
            failed: loading.map_err(|e| format!("failed to load components: {e}\n{e}"))?,
            components,
            policies,
            http_endpoints: resources.http_endpoints,
        })
    }

    fn application(
        &self,
        blocks: &Blocks,
        metrics: &Metrics,
        workers: &Workers,
        tracer: Tracer,
        pipelines: Pipelines,
    ) -> Result<Application, Failure> {
        let flags = self.flags;
        let channel = parts::app_channel(
            flags,
            self.settings,
            workers.slots(),
            pipelines.app.clone(),
            metrics,
            tracer.clone(),
        )?;
        if channel.is_none() {
            tracing::warn!(target: SCOPE, "App channel is not initialized. Did you configure an app-port?");
        }
        let subscriber = Subscriber::new(subscribe::Options {
            app_id: flags.app_id.clone(),
            brokers: blocks.components.pubsub.clone(),
            channel: channel.as_ref().map(|(channel, _)| channel.clone()),
            asks: !flags.disable_init.iter().any(|n| n == "subscribe"),
            resiliency: blocks.resiliency.clone(),
            workers: workers.clone(),
            tasks: self.tasks.child(),
            stores: blocks.components.state.clone(),
            namespace: self.settings.namespace.clone(),
        });
        let readers = Readers::new(read::Options {
            api: bindings::Api {
                bindings: blocks.components.bindings.clone(),
            },
            stores: blocks.components.state.clone(),
            channel: channel.as_ref().map(|(channel, _)| channel.clone()),
            probe_limit: flags.app.binding_probe,
            resiliency: blocks.resiliency.clone(),
            workers: workers.clone(),
            tasks: self.tasks.child(),
        });
        let following = readers.clone().follow(blocks.live.changes());
        let stopping = self.tasks.stopping();
        self.tasks.spawn("components of bindings", async move {
            stopping.run_until_cancelled(following).await;
        });
        let stores = blocks.components.configuration.clone();
        let configuration = Subscriptions::new(stores, self.tasks.child());
        let following = configuration.clone().follow(blocks.live.changes());
        let stopping = self.tasks.stopping();
        self.tasks
            .spawn("components of subscriptions to configuration", async move {
                stopping.run_until_cancelled(following).await;
            });
        Ok(Application {
            channel,
            subscriber,
            tracer,
            readers,
            configuration,
            pipelines,
        })
    }

    /// What keeps the resources as they are wanted from now on.
    fn appliers(
        &self,
        blocks: &Blocks,
        app: &Application,
        loaded: Loaded,
        subscriptions: subscription::Applier,
        operator: Option<&Operator>,
    ) -> Appliers {
        let reports = |operator: &Operator| Reports::new(operator.clone(), self.tasks.clone());
        Appliers {
            components: component::Applier::new(
                blocks.starter.clone(),
                app.subscriber.clone(),
                operator.map(reports),
                loaded.components,
                loaded.failed,
            ),
            subscriptions,
            http_endpoints: http_endpoint::Applier {
                in_use: loaded.http_endpoints,
            },
            resiliencies: loaded.policies,
        }
    }

    fn scheduler(&self, made: &Prepared) -> Result<Scheduler, Failure> {
        jobs::scheduler(
            self.flags,
            self.settings,
            &made.security,
            &self.readiness,
            made.internal.address(&self.flags.api.internal_address),
            self.tasks,
        )
    }

    /// Connections to other sidecars.
    fn peers(&self, security: &Security, internal: &Internal, workers: &Workers) -> Peers {
        let flags = self.flags;
        let security = match flags.control_plane.mtls {
            true => security.clone(),
            false => Security::plaintext(),
        };
        let peers = Peers::new(
            security,
            &internal.host,
            &host::name(),
            internal.port,
            flags.api.max_body,
            workers.slots(),
        );
        let (idle, interval) = (flags.peers.idle, flags.peers.interval);
        let closing_idle = peers.collect(idle, interval, self.tasks.stopping());
        self.tasks.spawn("peer connections", closing_idle);
        peers
    }

    /// What opens the listeners; none is open yet.
    fn servers(&self, workers: &Workers, serving: &Tasks) -> Servers<'_> {
        Servers {
            flags: self.flags,
            readiness: self.readiness.clone(),
            workers: workers.clone(),
            tasks: serving.clone(),
            leaving: Leaving::default(),
            sockets: Vec::new(),
        }
    }
}
