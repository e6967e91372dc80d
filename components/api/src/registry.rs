use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{Context, Error, Metadata, pubsub, secrets, state};

/// A building block, as far as naming its components goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Block {
    /// `state.*`
    State,
    /// `pubsub.*`
    PubSub,
    /// `secretstores.*`
    Secrets,
}

impl Block {
    /// The first part of a component's type.
    pub fn category(self) -> &'static str {
        match self {
            Block::State => "state",
            Block::PubSub => "pubsub",
            Block::Secrets => "secretstores",
        }
    }

    /// What a message calls one of its components.
    fn noun(self) -> &'static str {
        match self {
            Block::State => "state store",
            Block::PubSub => "message bus",
            Block::Secrets => "secret store",
        }
    }
}

/// Which versions of a type one constructor serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The first: absent, `v0` (unstable) and `v1`.
    Initial,
    /// Just this one; with `default`, also when none is given.
    Named {
        /// The version.
        version: &'static str,
        /// Whether it serves components that give no version.
        default: bool,
    },
    /// As [`Versions::Named`], for a version that users should leave.
    Deprecated {
        /// The version.
        version: &'static str,
        /// Whether it serves components that give no version.
        default: bool,
        /// The version to use instead.
        preferred: &'static str,
    },
}

impl Versions {
    /// The spellings of a version that this covers.
    fn keys(self) -> Vec<&'static str> {
        match self {
            Versions::Initial => vec!["", "v0", "v1"],
            Versions::Named { version, default }
            | Versions::Deprecated {
                version, default, ..
            } => {
                if default {
                    vec!["", version]
                } else {
                    vec![version]
                }
            }
        }
    }
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<Arc<T>, Error>> + Send>>;

/// Makes a connected component of its properties. Dropping the future gives
/// up.
pub type Constructor<T> = Arc<dyn Fn(Metadata, Context) -> Connecting<T> + Send + Sync>;

/// What a lookup found.
pub struct Found<T: ?Sized> {
    /// Makes the component.
    pub constructor: Constructor<T>,
    /// A line to log because the version is deprecated.
    pub warning: Option<String>,
}

struct Registered<T: ?Sized> {
    constructor: Constructor<T>,
    versions: Versions,
}

impl<T: ?Sized> Clone for Registered<T> {
    fn clone(&self) -> Registered<T> {
        Registered {
            constructor: self.constructor.clone(),
            versions: self.versions,
        }
    }
}

/// A type or alias that is registered, for the table in the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The whole type, such as `state.redis`, then its aliases.
    pub types: Vec<String>,
    /// The versions.
    pub versions: Versions,
    /// The crate that registered it.
    pub family: &'static str,
}

/// The type is registered already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "component type {type_name} version {version:?} is registered twice: remove one of the rows"
)]
pub struct Duplicate {
    type_name: String,
    version: &'static str,
}

/// No component of this type and version is registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't find {noun} {type_name}/{version}")]
pub struct Missing {
    noun: &'static str,
    type_name: String,
    version: String,
}

/// The components of one building block.
pub struct Table<T: ?Sized> {
    block: Block,
    entries: HashMap<(String, String), Registered<T>>,
    rows: Vec<Row>,
}

impl<T: ?Sized + 'static> Table<T> {
    fn new(block: Block) -> Table<T> {
        Table {
            block,
            entries: HashMap::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a component under its name (the type without its category) and
    /// its aliases. `family` is the crate it lives in.
    pub fn register<C, Connect>(
        &mut self,
        family: &'static str,
        names: &[&str],
        versions: Versions,
        connect: C,
    ) -> Result<(), Duplicate>
    where
        C: Fn(Metadata, Context) -> Connect + Send + Sync + 'static,
        Connect: Future<Output = Result<Arc<T>, Error>> + Send + 'static,
    {
        let constructor: Constructor<T> =
            Arc::new(move |metadata, context| Box::pin(connect(metadata, context)));
        let registered = Registered {
            constructor,
            versions,
        };
        let types: Vec<String> = names.iter().map(|name| self.full(name)).collect();
        for type_name in &types {
            for version in versions.keys() {
                let key = (type_name.clone(), version.to_owned());
                if self.entries.insert(key, registered.clone()).is_some() {
                    return Err(Duplicate {
                        type_name: type_name.clone(),
                        version,
                    });
                }
            }
        }
        self.rows.push(Row {
            types,
            versions,
            family,
        });
        Ok(())
    }

    /// Adds a component that was discovered at run time, unless one of its
    /// name is compiled in, which is not replaced. Returns whether it was added.
    pub fn add_discovered(&mut self, name: &str, constructor: Constructor<T>) -> bool {
        let type_name = self.full(name);
        if self.rows.iter().any(|row| row.types.contains(&type_name)) {
            return false;
        }
        for version in Versions::Initial.keys() {
            self.entries.insert(
                (type_name.clone(), version.to_owned()),
                Registered {
                    constructor: constructor.clone(),
                    versions: Versions::Initial,
                },
            );
        }
        true
    }

    /// Finds what makes components of a type (`state.redis`) and version
    /// (`v1`, or empty), whatever their case.
    pub fn find(&self, type_name: &str, version: &str) -> Result<Found<T>, Missing> {
        let key = (type_name.to_lowercase(), version.to_lowercase());
        let registered = self.entries.get(&key).ok_or_else(|| Missing {
            noun: self.block.noun(),
            type_name: type_name.to_owned(),
            version: version.to_owned(),
        })?;
        let warning = match registered.versions {
            Versions::Deprecated {
                version, preferred, ..
            } => {
                let noun = self.block.noun();
                let name = &key.0;
                Some(format!(
                    "WARNING: {noun} {name}/{version} is deprecated and will be removed in a future version, please use {name}/{preferred}"
                ))
            }
            Versions::Initial | Versions::Named { .. } => None,
        };
        Ok(Found {
            constructor: registered.constructor.clone(),
            warning,
        })
    }

    /// What is registered, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn full(&self, name: &str) -> String {
        format!("{}.{}", self.block.category(), name.to_lowercase())
    }
}

/// All components that a process can make. A value, so that tests build their
/// own.
pub struct Registry {
    /// State stores.
    pub state: Table<dyn state::Store>,
    /// Brokers.
    pub pubsub: Table<dyn pubsub::Broker>,
    /// Secret stores.
    pub secrets: Table<dyn secrets::Store>,
}

impl Registry {
    /// A registry without any component.
    pub fn new() -> Registry {
        Registry {
            state: Table::new(Block::State),
            pubsub: Table::new(Block::PubSub),
            secrets: Table::new(Block::Secrets),
        }
    }

    /// Everything that is registered, block by block.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.state
            .rows()
            .iter()
            .chain(self.pubsub.rows())
            .chain(self.secrets.rows())
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refuse(_: Metadata, _: Context) -> Result<Arc<dyn state::Store>, Error> {
        Err(Error::unavailable("nobody home"))
    }

    #[tokio::test]
    async fn the_first_version_has_three_spellings() {
        let mut registry = Registry::new();
        registry
            .state
            .register("test", &["sqlite", "sqlite3"], Versions::Initial, refuse)
            .expect("is new");
        for version in ["", "v0", "v1", "V1"] {
            let found = registry
                .state
                .find("State.SQLite3", version)
                .expect("is there");
            assert_eq!(found.warning, None);
            let error = (found.constructor)(Metadata::default(), Context::default())
                .await
                .err()
                .expect("always fails");
            assert_eq!(error.to_string(), "nobody home");
        }
        let missing = registry
            .state
            .find("state.sqlite", "v2")
            .err()
            .expect("no v2");
        assert_eq!(
            missing.to_string(),
            "couldn't find state store state.sqlite/v2"
        );
        assert_eq!(registry.rows().count(), 1);
    }

    #[test]
    fn a_deprecated_version_may_be_the_default() {
        let mut registry = Registry::new();
        let old = Versions::Deprecated {
            version: "v1",
            default: true,
            preferred: "v2",
        };
        let new = Versions::Named {
            version: "v2",
            default: false,
        };
        registry
            .state
            .register("test", &["etcd"], old, refuse)
            .expect("is new");
        registry
            .state
            .register("test", &["etcd"], new, refuse)
            .expect("is new");
        let found = registry
            .state
            .find("state.etcd", "")
            .expect("v1 is the default");
        assert_eq!(
            found.warning.expect("v1 is deprecated"),
            "WARNING: state store state.etcd/v1 is deprecated and will be removed in a future version, please use state.etcd/v2"
        );
        assert!(
            registry
                .state
                .find("state.etcd", "v2")
                .expect("is there")
                .warning
                .is_none()
        );
        assert!(registry.state.find("state.etcd", "v0").is_err());
    }

    #[test]
    fn names_are_registered_once() {
        let mut registry = Registry::new();
        registry
            .state
            .register("a", &["x"], Versions::Initial, refuse)
            .expect("is new");
        let twice = registry
            .state
            .register("b", &["y", "X"], Versions::Initial, refuse);
        assert!(twice.is_err());
    }
}
