//! What the sidecar says of itself.
//! <https://docs.dapr.io/reference/api/metadata_api/>

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use http::{Response, StatusCode};
use jiff::Timestamp;
use outrider_actors::Actors;
use outrider_crds::{Component, Kind as _, Subscription as SubscriptionResource};
use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::actor_runtime::ActorRuntimeStatus;
use outrider_resiliency::Resiliency;
use outrider_scheduler_client::Scheduler;
use outrider_telemetry::log;
use serde_json::{Map, Value, json};

use super::error::{body_read, malformed};
use super::json;
use super::pubsub::subscribe::{Source, Subscriber, Subscription};
use crate::blocks::descriptor::{self, Method, Route};
use crate::blocks::http::{self as api, Request, no_content};
use crate::blocks::invoke::external::Endpoint;
use crate::components::instance;
use crate::components::live::Live;
use crate::components::map;
use crate::components::status::Trouble;
use outrider_net::body::Body;

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "GetMetadata",
            verbs: descriptor::GET,
            versions: &[descriptor::V1],
            path: "metadata",
            group: "metadata",
            answer: |apis, _, _| Box::pin(async { http_get(&apis.metadata) }),
        },
        Route {
            name: "PutMetadata",
            verbs: descriptor::PUT,
            versions: &[descriptor::V1],
            path: "metadata/{}",
            group: "metadata",
            answer: |apis, request, names| Box::pin(http_put(&apis.metadata, request, names.first)),
        },
    ],
    methods: &[
        Method::new("GetMetadata", descriptor::V1, "metadata"),
        Method::new("SetMetadata", descriptor::V1, "metadata"),
    ],
    errors: &[],
};

/// Extended keys say why components and subscriptions are not in use as their
/// resources want them.
const COMPONENT_ERROR: &str = "outriderComponentError.";
const SUBSCRIPTION_ERROR: &str = "outriderSubscriptionError.";
/// The extended key that changes the level of the log.
const LOG_LEVEL: &str = "outriderLogLevel";

pub struct Api {
    pub app_id: String,
    pub features: Vec<String>,
    pub live: Arc<Live>,
    /// Hosts outside the mesh.
    pub endpoints: Arc<map::Map<Endpoint>>,
    pub subscriber: Subscriber,
    pub resiliency: Resiliency,
    pub scheduler: Scheduler,
    pub actors: Actors,
    pub app: App,
    /// What clients have added.
    pub extended: RwLock<BTreeMap<String, String>>,
}

/// The connection to the application.
pub struct App {
    pub port: u16,
    pub protocol: &'static str,
    pub address: String,
    pub max_concurrency: usize,
    pub health: Option<Health>,
}

/// Its probes; durations as Go prints them.
pub struct Health {
    /// None with gRPC.
    pub path: Option<String>,
    pub interval: String,
    pub timeout: String,
    pub threshold: u32,
}

impl Api {
    /// Keeps what a client says. An error means that it makes no sense.
    pub fn set(&self, key: &str, value: String) -> Result<(), String> {
        if key == LOG_LEVEL {
            log::set_level(&value).map_err(|_| format!("invalid log level: {value}"))?;
            tracing::info!(target: "dapr.runtime", "Log level set to: {}", value.to_lowercase());
        }
        if !key.is_empty() {
            self.extended
                .write()
                .unwrap_or_else(|e| e.into_inner())
                .insert(key.to_owned(), value);
        }
        Ok(())
    }

    fn extended(&self) -> BTreeMap<String, String> {
        let mut all = self
            .extended
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .clone();
        all.insert("daprRuntimeVersion".into(), outrider_host::VERSION.into());
        all.insert(
            "outriderVersion".into(),
            outrider_host::OUTRIDER_VERSION.into(),
        );
        for (kind, name, trouble) in self.live.status.not_running() {
            let prefix = match kind {
                Component::KIND => COMPONENT_ERROR,
                SubscriptionResource::KIND => SUBSCRIPTION_ERROR,
                _ => continue,
            };
            all.insert(format!("{prefix}{name}"), trouble.cause.to_string());
        }
        all
    }
}

pub fn http_get(api: &Api) -> Response<Body> {
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = match &value {
            Value::Array(items) => items.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => false,
        };
        if !empty {
            all.insert(key.to_owned(), value);
        }
    };
    put("id", api.app_id.clone().into());
    put("runtimeVersion", outrider_host::VERSION.into());
    put("enabledFeatures", api.features.clone().into());
    let components: Vec<Value> = api.live.components().iter().map(component).collect();
    put("components", components.into());
    put("extended", json!(api.extended()));
    let subscriptions = api.subscriber.subscriptions();
    let subscriptions: Vec<Value> = subscriptions.iter().map(|s| subscription(s)).collect();
    put("subscriptions", subscriptions.into());
    let names = |names: Vec<String>| {
        Value::from(
            names
                .into_iter()
                .map(|n| json!({"name": n}))
                .collect::<Vec<_>>(),
        )
    };
    put("httpEndpoints", names(api.endpoints.names()));
    put("resiliencies", names(api.resiliency.names()));
    let mut app = Map::new();
    if api.app.port != 0 {
        app.insert("port".into(), api.app.port.into());
    }
    app.insert("protocol".into(), api.app.protocol.into());
    app.insert("channelAddress".into(), api.app.address.clone().into());
    if api.app.max_concurrency != 0 {
        app.insert("maxConcurrency".into(), api.app.max_concurrency.into());
    }
    if let Some(health) = &api.app.health {
        let mut probes = Map::new();
        if let Some(path) = &health.path {
            probes.insert("healthCheckPath".into(), path.clone().into());
        }
        probes.insert("healthProbeInterval".into(), health.interval.clone().into());
        probes.insert("healthProbeTimeout".into(), health.timeout.clone().into());
        probes.insert("healthThreshold".into(), health.threshold.into());
        app.insert("health".into(), probes.into());
    }
    put("appConnectionProperties", app.into());
    put("actorRuntime", actor_runtime(&api.actors));
    let members = api.scheduler.addresses();
    if !members.is_empty() {
        put("scheduler", json!({"connected_addresses": members}));
    }
    // Of ours: there is nothing in it as long as all resources are in use.
    let not_running = api.live.status.not_running().into_iter();
    let resources: Vec<Value> = not_running.map(resource).collect();
    put("resources", resources.into());
    api::json(StatusCode::OK, json::to_line(&Value::Object(all)))
}

fn actor_runtime(actors: &Actors) -> Value {
    let runtime = wire_actor_runtime(actors);
    let mut object = json!({
        "runtimeStatus": runtime.runtime_status().as_str_name(),
        "hostReady": runtime.host_ready,
        "placement": runtime.placement,
    });
    let active = runtime
        .active_actors
        .into_iter()
        .map(|active| match active.count {
            0 => json!({"type": active.r#type}),
            count => json!({"type": active.r#type, "count": count}),
        });
    let active: Vec<Value> = active.collect();
    if !active.is_empty() {
        object["activeActors"] = active.into();
    }
    object
}

fn wire_actor_runtime(actors: &Actors) -> wire::ActorRuntime {
    let status = actors.status();
    let is_known = status.enabled && actors.hosting().is_registered();
    let runtime_status = match (status.enabled, is_known) {
        (false, _) => ActorRuntimeStatus::Disabled,
        (true, false) => ActorRuntimeStatus::Initializing,
        (true, true) => ActorRuntimeStatus::Running,
    };
    let placement = match (runtime_status, status.connected) {
        (ActorRuntimeStatus::Initializing, _) => "",
        (_, true) => "placement: connected",
        (_, false) => "placement: disconnected",
    };
    wire::ActorRuntime {
        runtime_status: runtime_status.into(),
        host_ready: is_known && status.connected,
        placement: placement.to_owned(),
        active_actors: active_actors(actors),
    }
}

fn active_actors(actors: &Actors) -> Vec<wire::ActiveActorsCount> {
    let counts = actors.counts().into_iter();
    let counts = counts.map(|(kind, count)| wire::ActiveActorsCount {
        r#type: kind.to_string(),
        count: i32::try_from(count).unwrap_or(i32::MAX),
    });
    counts.collect()
}

fn resource((kind, name, trouble): (&str, String, Trouble)) -> Value {
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut object = json!({
        "kind": kind,
        "name": name,
        "status": trouble.cause.status(),
        "reason": trouble.cause.to_string(),
        "since": time(trouble.since),
    });
    if let Some(at) = trouble.next_try {
        object["nextTry"] = time(at).into();
    }
    object
}

fn component(component: &instance::Description) -> Value {
    let mut object = json!({"name": component.name, "type": component.component_type, "version": component.version});
    if !component.capabilities.is_empty() {
        object["capabilities"] = component.capabilities.clone().into();
    }
    object
}

fn subscription(subscription: &Subscription) -> Value {
    let spec = &subscription.spec;
    let rules = subscription.rules.all.iter().map(|rule| {
        let mut object = Map::new();
        for (key, text) in [("match", &rule.condition), ("path", &rule.path)] {
            if !text.is_empty() {
                object.insert(key.into(), text.clone().into());
            }
        }
        Value::from(object)
    });
    let mut object = json!({
        "pubsubname": spec.pubsubname,
        "topic": spec.topic,
        "rules": rules.collect::<Vec<_>>(),
        "deadLetterTopic": spec.dead_letter_topic,
        "type": match subscription.source {
            Source::Declarative => "DECLARATIVE",
            Source::Programmatic => "PROGRAMMATIC",
            Source::Streaming => "STREAMING",
        },
    });
    if !spec.metadata.is_empty() {
        object["metadata"] = json!(spec.metadata);
    }
    object
}

fn wire_subscription(subscription: &Subscription) -> wire::PubsubSubscription {
    use wire::PubsubSubscriptionType as Type;
    let spec = &subscription.spec;
    let rules = subscription
        .rules
        .all
        .iter()
        .map(|rule| wire::PubsubSubscriptionRule {
            r#match: rule.condition.clone(),
            path: rule.path.clone(),
        });
    let kind = match subscription.source {
        Source::Declarative => Type::Declarative,
        Source::Programmatic => Type::Programmatic,
        Source::Streaming => Type::Streaming,
    };
    wire::PubsubSubscription {
        pubsub_name: spec.pubsubname.clone(),
        topic: spec.topic.clone(),
        metadata: spec.metadata.clone().into_iter().collect(),
        rules: Some(wire::PubsubSubscriptionRules {
            rules: rules.collect(),
        }),
        dead_letter_topic: spec.dead_letter_topic.clone(),
        r#type: kind.into(),
    }
}

pub async fn http_put(api: &Api, mut request: Request, key: &str) -> Response<Body> {
    match request.bytes().await {
        Err(error) => body_read(error).into(),
        Ok(value) => match String::from_utf8(value.into()) {
            Err(_) => malformed(format!("the value of {key} is not UTF-8")).into(),
            Ok(value) => match api.set(key, value) {
                Ok(()) => no_content(),
                Err(cause) => malformed(cause).into(),
            },
        },
    }
}

pub fn grpc_get(api: &Api) -> wire::GetMetadataResponse {
    let app = &api.app;
    wire::GetMetadataResponse {
        id: api.app_id.clone(),
        runtime_version: outrider_host::VERSION.into(),
        enabled_features: api.features.clone(),
        registered_components: api
            .live
            .components()
            .into_iter()
            .map(|c| wire::RegisteredComponents {
                name: c.name,
                r#type: c.component_type,
                version: c.version,
                capabilities: c.capabilities.into_iter().map(str::to_owned).collect(),
            })
            .collect(),
        subscriptions: api
            .subscriber
            .subscriptions()
            .iter()
            .map(|s| wire_subscription(s))
            .collect(),
        extended_metadata: api.extended().into_iter().collect::<HashMap<_, _>>(),
        http_endpoints: api
            .endpoints
            .names()
            .into_iter()
            .map(|name| wire::MetadataHttpEndpoint { name })
            .collect(),
        resiliencies: api
            .resiliency
            .names()
            .into_iter()
            .map(|name| wire::MetadataResiliency { name })
            .collect(),
        app_connection_properties: Some(wire::AppConnectionProperties {
            port: app.port.into(),
            protocol: app.protocol.into(),
            channel_address: app.address.clone(),
            max_concurrency: i32::try_from(app.max_concurrency).unwrap_or(i32::MAX),
            health: app
                .health
                .as_ref()
                .map(|h| wire::AppConnectionHealthProperties {
                    health_check_path: h.path.clone().unwrap_or_default(),
                    health_probe_interval: h.interval.clone(),
                    health_probe_timeout: h.timeout.clone(),
                    health_threshold: i32::try_from(h.threshold).unwrap_or(i32::MAX),
                }),
        }),
        actor_runtime: Some(wire_actor_runtime(&api.actors)),
        active_actors_count: active_actors(&api.actors),
        scheduler: Some(api.scheduler.addresses())
            .filter(|addresses| !addresses.is_empty())
            .map(|connected_addresses| wire::MetadataScheduler {
                connected_addresses,
            }),
        ..Default::default()
    }
}
