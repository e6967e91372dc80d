//! Runs the suites on all components that have one.

mod bindings;
mod configuration;
mod configuration_postgresql;
mod conversation;
mod crypto;
mod etcd;
mod graphql;
mod http;
mod identity;
mod in_memory;
mod killed;
mod kubernetes;
mod memcached;
mod middleware;
mod mqtt;
mod mysql;
mod nats;
mod postgresql;
mod rabbitmq;
mod redis;
mod secrets;
mod smtp;
mod sql_bindings;
mod sqlite;
mod tls;
mod vault;

use std::collections::BTreeSet;
use std::sync::Arc;

use outrider_components::{Context, Metadata, Registry, Tested, pubsub, state};

/// The types that the tests of this folder run a suite on.
const TYPES: &[&str] = &[
    "state.in-memory",
    "pubsub.in-memory",
    "secretstores.local.env",
    "secretstores.local.file",
    "state.redis",
    "pubsub.redis",
    "state.sqlite",
    "state.etcd",
    "pubsub.jetstream",
    "state.mysql",
    "state.memcached",
    "pubsub.mqtt3",
    "pubsub.rabbitmq",
    "bindings.graphql",
    "secretstores.hashicorp.vault",
    "bindings.mqtt3",
    "bindings.rabbitmq",
    "state.postgresql",
    "bindings.cron",
    "bindings.localstorage",
    "bindings.redis",
    "bindings.http",
    "bindings.postgresql",
    "bindings.mysql",
    "bindings.smtp",
    "configuration.redis",
    "configuration.postgresql",
    "configuration.kubernetes",
    "lock.redis",
    "crypto.dapr.localstorage",
    "crypto.dapr.jwks",
    "conversation.echo",
    "conversation.openai",
    "conversation.ollama",
    "conversation.deepseek",
    "conversation.mistral",
    "conversation.anthropic",
    "middleware.http.bearer",
    "middleware.http.oauth2",
    "middleware.http.oauth2clientcredentials",
];

fn registry() -> Registry {
    let mut registry = Registry::new();
    outrider_components_local::register(&mut registry).expect("no type twice");
    outrider_components_redis::register(&mut registry).expect("no type twice");
    outrider_components_etcd::register(&mut registry).expect("no type twice");
    outrider_components_nats::register(&mut registry).expect("no type twice");
    outrider_components_memcached::register(&mut registry).expect("no type twice");
    outrider_components_mqtt::register(&mut registry).expect("no type twice");
    outrider_components_rabbitmq::register(&mut registry).expect("no type twice");
    outrider_components_smtp::register(&mut registry).expect("no type twice");
    outrider_components_sql::register(&mut registry).expect("no type twice");
    outrider_components_kubernetes::register(&mut registry).expect("no type twice");
    outrider_components_sql::mysql::register(&mut registry).expect("no type twice");
    outrider_components_sql::postgresql::register(&mut registry).expect("no type twice");
    outrider_components_web::register(&mut registry).expect("no type twice");
    registry
}

#[test]
fn a_suite_runs_on_the_types_whose_rows_claim_it() {
    let registry = registry();
    let claimed: BTreeSet<_> = registry
        .rows()
        .filter(|(_, row)| matches!(row.tested, Tested::Conformance(_)))
        .map(|(category, row)| format!("{category}.{}", row.names[0]))
        .collect();
    assert_eq!(claimed, TYPES.iter().map(|it| (*it).to_owned()).collect());
}

fn context(app: &str) -> Context {
    Context {
        app_id: app.to_owned(),
        ..Context::default()
    }
}

async fn state(type_name: &str, properties: &[(&str, &str)]) -> Arc<dyn state::Store> {
    assert!(TYPES.contains(&type_name), "add {type_name} to TYPES");
    state_version(type_name, "v1", properties).await
}

async fn state_version(
    type_name: &str,
    version: &str,
    properties: &[(&str, &str)],
) -> Arc<dyn state::Store> {
    let found = registry()
        .state
        .find(type_name, version)
        .expect("is registered");
    let metadata = Metadata::new("store", properties.iter().copied());
    (found.constructor)(metadata, context("app"))
        .await
        .expect("connects")
}

async fn broker(
    type_name: &str,
    app: &str,
    properties: &[(&str, &str)],
) -> Arc<dyn pubsub::Broker> {
    assert!(TYPES.contains(&type_name), "add {type_name} to TYPES");
    let found = registry()
        .pubsub
        .find(type_name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("broker", properties.iter().copied());
    (found.constructor)(metadata, context(app))
        .await
        .expect("connects")
}
