//! Runs the suites on the components of the `lean` set.

mod bindings;
mod configuration;
mod conversation;
mod crypto;
mod http;
mod identity;
mod in_memory;
mod kubernetes;
mod middleware;
mod redis;
mod secrets;
mod sqlite;

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
    "bindings.cron",
    "bindings.localstorage",
    "bindings.redis",
    "bindings.http",
    "configuration.redis",
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
    outrider_components_sql::register(&mut registry).expect("no type twice");
    outrider_components_kubernetes::register(&mut registry).expect("no type twice");
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
    let found = registry()
        .state
        .find(type_name, "v1")
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
