//! What the APIs are made of: operations of every block, and what stands before
//! them.

use std::sync::Arc;

use outrider_actors::reminders::Reminders;
use outrider_actors::timers::Timers;
use outrider_call::headers::Caller;
use outrider_call::metadata;
use outrider_crds::HttpEndpoint;
use outrider_crds::configuration::Spec;
use outrider_host::{Readiness, Workers};
use outrider_metrics::Metrics;
use outrider_peer::call::Peers;
use outrider_peer::reach::Sidecars;
use outrider_peer::serve::Callee;
use outrider_scheduler_client::Scheduler;
use tokio::sync::mpsc;

use super::{Application, Blocks, Failure, SCOPE, Start};
use crate::app::parts;
use crate::blocks::invoke::external::{self, Endpoint};
use crate::blocks::shutdown::Asked;
use crate::blocks::{
    actors, bindings, configuration, conversation, crypto, health, invoke, jobs, lock, pubsub,
    secrets, shutdown, state,
};
use crate::components::map::Map;
use crate::config;
use crate::edge::{Apis, allow, cors, log};

/// What the APIs take over.
pub(super) struct Parts {
    pub features: Vec<String>,
    pub invoke: invoke::Api,
    pub scheduler: Scheduler,
    pub actors: actors::Api,
    pub timers: Timers,
    pub reminders: Reminders,
    pub ask: mpsc::UnboundedSender<Asked>,
}

impl Start<'_> {
    /// Calls of other applications and of hosts outside the mesh.
    pub(super) async fn invoke(
        &self,
        blocks: &Blocks,
        app: &Application,
        metrics: &Metrics,
        workers: &Workers,
        peers: Peers,
        http_endpoints: Vec<HttpEndpoint>,
    ) -> invoke::Api {
        let pools = external::Pools::new(workers.slots(), self.flags.app.max_concurrency);
        invoke::Api {
            app_id: self.flags.app_id.clone(),
            namespace: self.settings.namespace.clone(),
            caller: Caller::new(&self.flags.app_id, &self.settings.namespace),
            channel: app.channel(),
            sidecars: Sidecars {
                peers,
                resolver: blocks.resolver.clone(),
            },
            endpoints: endpoints(http_endpoints, blocks, &pools).await,
            external: external::Client::new(&pools, app.pipelines.app.clone(), metrics),
            calls: metrics.calls(),
            tracer: app.tracer.clone(),
            resiliency: blocks.resiliency.clone(),
        }
    }

    pub(super) fn apis(
        &self,
        spec: &Spec,
        metrics: &Metrics,
        blocks: &Blocks,
        app: &Application,
        parts: Parts,
    ) -> Result<Arc<Apis>, Failure> {
        let flags = self.flags;
        Ok(Arc::new(Apis {
            blocks: self.block_apis(spec, blocks, app, parts)?,
            http_metrics: metrics.http_server(),
            grpc_metrics: metrics.grpc_server(),
            cors: cors::Cors::new(&flags.api.allowed_origins),
            log: log::Log::new(flags.api.logging, spec.logging.as_ref()),
            allowed: allow::Allowed::new(spec.api.as_ref())?,
            token: flags.api.token.clone(),
            tracer: app.tracer.clone(),
            max_body: flags.api.max_body,
            pipeline: app.pipelines.server.clone(),
        }))
    }

    fn block_apis(
        &self,
        spec: &Spec,
        blocks: &Blocks,
        app: &Application,
        parts: Parts,
    ) -> Result<crate::blocks::Apis, Failure> {
        let flags = self.flags;
        let components = &blocks.components;
        let about = parts::About {
            features: parts.features,
            live: blocks.live.clone(),
            endpoints: parts.invoke.endpoints.clone(),
            subscriber: app.subscriber.clone(),
            resiliency: blocks.resiliency.clone(),
            scheduler: parts.scheduler.clone(),
            actors: parts.actors.actors.clone(),
        };
        Ok(crate::blocks::Apis {
            state: state::Api {
                app_id: flags.app_id.clone(),
                stores: components.state.clone(),
                outbox: app.subscriber.outbox(),
            },
            secrets: secrets::Api {
                stores: components.secrets.clone(),
                scopes: secrets::scope::parse(spec.secrets.as_ref())?,
            },
            pubsub: pubsub::Api {
                app_id: flags.app_id.clone(),
                brokers: components.pubsub.clone(),
                subscriber: app.subscriber.clone(),
                tracer: app.tracer.clone(),
            },
            bindings: bindings::Api {
                bindings: components.bindings.clone(),
            },
            configuration: configuration::Api {
                stores: components.configuration.clone(),
                subscriptions: app.configuration.clone(),
                channel: app.channel(),
                resiliency: blocks.resiliency.clone(),
            },
            lock: lock::Api {
                stores: components.lock.clone(),
            },
            timers: actors::timers::Api {
                actors: parts.actors.actors.clone(),
                timers: parts.timers,
            },
            reminders: actors::reminders::Api {
                reminders: parts.reminders,
            },
            actors: parts.actors,
            jobs: jobs::Api {
                scheduler: parts.scheduler,
                app_id: flags.app_id.clone(),
                namespace: self.settings.namespace.clone(),
            },
            conversation: conversation::Api {
                models: components.conversation.clone(),
            },
            crypto: crypto::Api {
                providers: components.crypto.clone(),
            },
            invoke: parts.invoke,
            metadata: about.api(flags, self.settings),
            health: health::Api {
                app_id: flags.app_id.clone(),
                readiness: self.readiness.clone(),
                outbound: Readiness::new().target("outbound"),
            },
            shutdown: shutdown::Api { ask: parts.ask },
        })
    }

    /// What answers other sidecars.
    pub(super) fn callee(
        &self,
        spec: &Spec,
        app: &Application,
        metrics: &Metrics,
    ) -> Result<Callee, Failure> {
        Ok(Callee {
            app_id: metadata::value(&self.flags.app_id),
            channel: app.channel(),
            access: config::access(spec)?,
            limit: self.flags.api.max_body,
            calls: metrics.calls(),
            tracer: app.tracer.clone(),
        })
    }
}

/// The hosts outside the mesh that resources name.
async fn endpoints(
    resources: Vec<HttpEndpoint>,
    blocks: &Blocks,
    pools: &external::Pools,
) -> Arc<Map<Endpoint>> {
    tracing::info!(target: SCOPE, "Loading endpoints\u{2026}");
    let endpoints = Arc::<Map<Endpoint>>::default();
    for resource in resources {
        tracing::info!(target: SCOPE, "Found http endpoint: {}", resource.metadata.name);
        let sources = &blocks.starter.sources;
        let endpoint = Endpoint::new(resource, sources, &blocks.live.secrets, pools).await;
        match endpoint.fault() {
            Some(why) => blocks
                .live
                .status
                .failed::<HttpEndpoint>(&endpoint.name, why),
            None => blocks.live.status.running::<HttpEndpoint>(&endpoint.name),
        }
        endpoints.insert(&endpoint.name.clone(), Arc::new(endpoint));
    }
    tracing::info!(target: SCOPE, "All outstanding http endpoints processed");
    endpoints
}
