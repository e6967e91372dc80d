//! The components that this build holds.

mod resolver;

use outrider_components::{Duplicate, Registry};

pub use resolver::resolver;

/// Every component of every family that is compiled in.
pub fn registry() -> Result<Registry, Duplicate> {
    let mut registry = Registry::new();
    #[cfg(feature = "local")]
    outrider_components_local::register(&mut registry)?;
    #[cfg(feature = "redis")]
    outrider_components_redis::register(&mut registry)?;
    #[cfg(feature = "sql")]
    outrider_components_sql::register(&mut registry)?;
    #[cfg(feature = "kubernetes")]
    outrider_components_kubernetes::register(&mut registry)?;
    Ok(registry)
}

/// Adds what other programs serve on the sockets of `folder`. With `any_user`
/// it does not matter whose they are.
pub async fn discover(registry: &mut Registry, folder: &std::path::Path, any_user: bool) {
    #[cfg(feature = "pluggable")]
    outrider_components_pluggable::register(registry, folder, any_user).await;
    #[cfg(not(feature = "pluggable"))]
    let _ = (registry, folder, any_user);
}

#[cfg(all(test, feature = "lean"))]
mod tests {
    use super::registry;

    #[test]
    fn every_type_is_registered_once() {
        let registry = registry().expect("no type twice");
        let types: Vec<_> = registry
            .rows()
            .flat_map(|row| &row.types)
            .map(String::as_str)
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
                "secretstores.local.env",
                "secretstores.local.file",
                "secretstores.kubernetes",
            ]
        );
    }
}
