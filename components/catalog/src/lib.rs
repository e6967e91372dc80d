//! The components that this build has: one feature a family, and sets of them.

use outrider_components::{Duplicate, Registry};

/// Every component of every family that is compiled in.
pub fn registry() -> Result<Registry, Duplicate> {
    #[allow(unused_mut, reason = "a build may have no family")]
    let mut registry = Registry::new();
    #[cfg(feature = "local")]
    outrider_components_local::register(&mut registry)?;
    #[cfg(feature = "redis")]
    outrider_components_redis::register(&mut registry)?;
    #[cfg(feature = "sql")]
    outrider_components_sql::register(&mut registry)?;
    #[cfg(feature = "mysql")]
    outrider_components_sql::mysql::register(&mut registry)?;
    #[cfg(feature = "postgresql")]
    outrider_components_sql::postgresql::register(&mut registry)?;
    #[cfg(feature = "kubernetes")]
    outrider_components_kubernetes::register(&mut registry)?;
    #[cfg(feature = "web")]
    outrider_components_web::register(&mut registry)?;
    #[cfg(feature = "etcd")]
    outrider_components_etcd::register(&mut registry)?;
    #[cfg(feature = "memcached")]
    outrider_components_memcached::register(&mut registry)?;
    #[cfg(feature = "mqtt")]
    outrider_components_mqtt::register(&mut registry)?;
    #[cfg(feature = "nats")]
    outrider_components_nats::register(&mut registry)?;
    #[cfg(feature = "rabbitmq")]
    outrider_components_rabbitmq::register(&mut registry)?;
    #[cfg(feature = "smtp")]
    outrider_components_smtp::register(&mut registry)?;
    #[cfg(feature = "opa")]
    outrider_components_opa::register(&mut registry)?;
    #[cfg(feature = "wasm")]
    outrider_components_wasm::register(&mut registry)?;
    Ok(registry)
}

/// Adds the pluggable components behind the sockets of `folder`. With
/// `any_user` sockets of every user are accepted.
pub async fn discover(registry: &mut Registry, folder: &std::path::Path, any_user: bool) {
    #[cfg(feature = "pluggable")]
    outrider_components_pluggable::register(registry, folder, any_user).await;
    #[cfg(not(feature = "pluggable"))]
    let _ = (registry, folder, any_user);
}

#[cfg(all(test, feature = "lean", not(feature = "stable")))]
mod tests {
    use super::registry;

    #[test]
    fn every_type_is_registered_once() {
        let registry = registry().expect("no type twice");
        let types: Vec<_> = registry
            .rows()
            .flat_map(|(category, row)| {
                row.names
                    .iter()
                    .map(move |name| format!("{category}.{name}"))
            })
            .collect();
        assert_eq!(
            types,
            [
                "state.in-memory",
                "state.redis",
                "state.sqlite",
                "state.sqlite3",
                "pubsub.in-memory",
                "pubsub.redis",
                "bindings.cron",
                "bindings.localstorage",
                "bindings.redis",
                "bindings.http",
                "bindings.graphql",
                "conversation.echo",
                "conversation.openai",
                "conversation.ollama",
                "conversation.deepseek",
                "conversation.mistral",
                "conversation.anthropic",
                "crypto.dapr.localstorage",
                "crypto.dapr.kubernetes.secrets",
                "crypto.dapr.jwks",
                "secretstores.local.env",
                "secretstores.local.file",
                "secretstores.kubernetes",
                "secretstores.hashicorp.vault",
                "configuration.redis",
                "configuration.kubernetes",
                "lock.redis",
                "middleware.http.ratelimit",
                "middleware.http.routeralias",
                "middleware.http.routerchecker",
                "middleware.http.sentinel",
                "middleware.http.uppercase",
                "middleware.http.bearer",
                "middleware.http.oauth2",
                "middleware.http.oauth2clientcredentials",
                "nameresolution.mdns",
                "nameresolution.kubernetes",
                "nameresolution.nameformat",
                "nameresolution.sqlite",
                "nameresolution.hashicorp.consul",
                "nameresolution.consul",
            ]
        );
    }
}
