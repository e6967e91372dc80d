//! Runs the suites on the components of the `lean` set.

mod in_memory;
mod redis;
mod secrets;
mod sqlite;

use std::sync::Arc;

use outrider_components::{Context, Metadata, Registry, pubsub, state};

fn registry() -> Registry {
    let mut registry = Registry::new();
    outrider_components_local::register(&mut registry).expect("no type twice");
    outrider_components_redis::register(&mut registry).expect("no type twice");
    outrider_components_sql::register(&mut registry).expect("no type twice");
    registry
}

fn context(app: &str) -> Context {
    Context {
        app_id: app.to_owned(),
        ..Context::default()
    }
}

async fn state(type_name: &str, properties: &[(&str, &str)]) -> Arc<dyn state::Store> {
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
    let found = registry()
        .pubsub
        .find(type_name, "v1")
        .expect("is registered");
    let metadata = Metadata::new("broker", properties.iter().copied());
    (found.constructor)(metadata, context(app))
        .await
        .expect("connects")
}
