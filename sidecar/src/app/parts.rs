//! The parts that a start puts together.

use std::sync::Arc;

use outrider_actors::Actors;
use outrider_components::resolve::Resolver;
use outrider_components::{Context, Metadata, Registry};
use outrider_crds::configuration::Spec;
use outrider_host::Tasks;
use outrider_kit::duration;
use outrider_resiliency::Resiliency;
use outrider_scheduler_client::Scheduler;
use outrider_security::identity::Key;
use outrider_security::{Security, anchors, token};
use outrider_trace::Tracer;
use tokio::sync::Semaphore;

use super::settings::Settings;
use super::{Failure, SCOPE};
use crate::blocks::invoke::external::Endpoint;
use crate::blocks::metadata;
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::components::live::Live;
use crate::components::map::Map;
use crate::flags::{Flags, Mode, Protocol};
use crate::resources::operator::{Operator, retry_until_answered};
use outrider_call::channel::connect::Connector;
use outrider_call::channel::{self, Channel, Healthy};
use outrider_call::pipeline::Pipeline;
use outrider_metrics::Metrics;

pub async fn secured(
    flags: &Flags,
    settings: &Settings,
    tasks: &Tasks,
) -> Result<Security, Failure> {
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
pub async fn config_of_operator(operator: &Operator, names: &[String]) -> Result<Spec, Failure> {
    let Some((name, rest)) = names.split_first() else {
        tracing::info!(target: SCOPE, "loading default configuration");
        return Ok(Spec::default());
    };
    if !rest.is_empty() {
        tracing::warn!(target: SCOPE, "only one Configuration is used in Kubernetes: {name}");
    }
    let what = format!("configuration {name}");
    let answered = retry_until_answered(&what, async || operator.configuration(name).await).await;
    Ok(answered?.spec)
}

/// Makes the name resolver. If that fails it is logged: only invocation needs it.
pub async fn resolver(
    spec: &Spec,
    mode: Mode,
    registry: &Registry,
    context: Context,
    metrics: &Metrics,
) -> Option<Arc<dyn Resolver>> {
    let given = spec.name_resolution.clone().unwrap_or_default();
    let kind = match given.component.as_str() {
        "" if mode == Mode::Kubernetes => "kubernetes",
        "" => "mdns",
        named => named,
    };
    let version = match given.version.as_str() {
        "" => "v1",
        version => version,
    };
    let metadata = Metadata::from_json("nr", &given.configuration);
    let connected = async {
        let found = registry.nameresolution.find_by_name(kind, version);
        let found = found.map_err(|missing| missing.to_string())?;
        (found.constructor)(metadata, context)
            .await
            .map_err(|error| error.to_string())
    };
    match connected.await {
        Ok(resolver) => {
            tracing::info!(target: SCOPE, "Initialized name resolution to {kind}");
            Some(resolver)
        }
        Err(error) => {
            tracing::error!(target: SCOPE, "Failed to init name resolution: {error}");
            metrics
                .calls()
                .component_failed("nameResolution", "init", kind);
            None
        }
    }
}

pub fn app_channel(
    flags: &Flags,
    settings: &Settings,
    slots: usize,
    pipeline: Option<Pipeline>,
    metrics: &Metrics,
    tracer: Tracer,
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
            slots,
            metrics.grpc_client(),
        ))
    } else {
        let h2c = protocol == Protocol::H2c;
        channel::Kind::Http(channel::http::Client::new(
            connector.clone(),
            h2c,
            token,
            flags.api.read_buffer,
            slots,
            pipeline,
            metrics.http_client(),
        )?)
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
        tracer,
    };
    Ok(Some((Arc::new(channel), connector)))
}

/// What the metadata API shows, besides the flags.
pub struct About {
    pub features: Vec<String>,
    pub live: Arc<Live>,
    pub endpoints: Arc<Map<Endpoint>>,
    pub subscriber: Subscriber,
    pub resiliency: Resiliency,
    pub scheduler: Scheduler,
    pub actors: Actors,
}

impl About {
    pub fn api(self, flags: &Flags, settings: &Settings) -> metadata::Api {
        let probes = &flags.app.probes;
        metadata::Api {
            app_id: flags.app_id.clone(),
            features: self.features,
            live: self.live,
            endpoints: self.endpoints,
            subscriber: self.subscriber,
            resiliency: self.resiliency,
            scheduler: self.scheduler,
            actors: self.actors,
            app: metadata::App {
                port: settings.app_port,
                protocol: settings.protocol.name(),
                address: flags.app.address.clone(),
                max_concurrency: flags.app.max_concurrency.unwrap_or(0),
                health: flags.app.probed.then(|| metadata::Health {
                    path: (!settings.protocol.is_grpc()).then(|| probes.path.clone()),
                    interval: duration::format(probes.interval),
                    timeout: duration::format(probes.timeout),
                    threshold: probes.threshold,
                }),
            },
            extended: Default::default(),
        }
    }
}
