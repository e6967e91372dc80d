use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::conversation::Conversation;
use crate::crypto::Crypto;
use crate::{
    Context, Error, Field, Metadata, bindings, configuration, lock, middleware, pubsub, resolve,
    secrets, state,
};

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
    /// As [`Versions::Named`], for a version that has a successor.
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

type ConnectFuture<T> = Pin<Box<dyn Future<Output = Result<Arc<T>, Error>> + Send>>;

/// Makes a connected component of its properties. Dropping the future ends the
/// attempt.
pub type Constructor<T> = Arc<dyn Fn(Metadata, Context) -> ConnectFuture<T> + Send + Sync>;

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

/// A component as its family's list declares it: one row of
/// `docs/components.md`.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name, which is the type without the category, then its aliases. In
    /// lower case.
    pub names: &'static [&'static str],
    /// The versions that the constructor makes.
    pub versions: Versions,
    /// How far it is to be relied on.
    pub status: Status,
    /// How it is tested.
    pub tested: Tested,
    /// Its metadata fields, in groups: one file may read fields of another.
    pub fields: &'static [&'static [Field]],
    /// Its file, from the top of the repository.
    pub file: &'static str,
}

/// How far a component is to be relied on, as in
/// <https://docs.dapr.io/operations/components/certification-lifecycle/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// May change in every release.
    Alpha,
    /// Changes are announced.
    Beta,
    /// Stays as it is.
    Stable,
}

/// How a component is tested, and against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tested {
    /// By the suite of its building block in `components/conformance`.
    Conformance(&'static str),
    /// By the tests in its own file.
    Unit(&'static str),
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
#[error("couldn't find {noun} {asked}/{version}")]
pub struct Missing {
    noun: &'static str,
    asked: String,
    version: String,
}

/// The list of a family's components, one row each:
///
/// ```text
/// <table of the registry>: <module> { <fields of Row> }
/// ```
///
/// The module has the component's `connect`, which is its constructor, and its
/// `FIELDS`. Makes the family's function `register`. The modules are declared
/// beside it: rustfmt does not follow declarations inside a macro.
#[macro_export]
macro_rules! components {
    ($($table:ident: $($module:ident)::+ { $($field:ident: $value:expr),+ $(,)? })+) => {
        /// Registers every component of this crate.
        pub fn register(
            registry: &mut $crate::Registry,
        ) -> ::std::result::Result<(), $crate::Duplicate> {
            use $crate::{Status::*, Tested::*, Versions::*};
            $(registry.$table.register(
                $crate::Row { fields: $($module)::+::FIELDS, $($field: $value),+ },
                $($module)::+::connect,
            )?;)+
            Ok(())
        }
    };
}

/// The components of one building block.
pub struct Table<T: ?Sized> {
    category: &'static str,
    noun: &'static str,
    entries: HashMap<(String, String), Registered<T>>,
    rows: Vec<Row>,
}

impl<T: ?Sized + 'static> Table<T> {
    /// `category` is the first part of the types; error texts call a component
    /// of the table `noun`.
    fn new(category: &'static str, noun: &'static str) -> Table<T> {
        Table {
            category,
            noun,
            entries: HashMap::new(),
            rows: Vec::new(),
        }
    }

    /// Adds the component of a row. `connect` makes one of its properties.
    pub fn register<C, Connect>(&mut self, row: Row, connect: C) -> Result<(), Duplicate>
    where
        C: Fn(Metadata, Context) -> Connect + Send + Sync + 'static,
        Connect: Future<Output = Result<Arc<T>, Error>> + Send + 'static,
    {
        let constructor: Constructor<T> =
            Arc::new(move |metadata, context| Box::pin(connect(metadata, context)));
        let registered = Registered {
            constructor,
            versions: row.versions,
        };
        for name in row.names {
            for version in row.versions.keys() {
                let key = ((*name).to_owned(), version.to_owned());
                if self.entries.insert(key, registered.clone()).is_some() {
                    return Err(Duplicate {
                        type_name: format!("{}.{name}", self.category),
                        version,
                    });
                }
            }
        }
        self.rows.push(row);
        Ok(())
    }

    /// Adds a component that was discovered at run time, unless one of its
    /// name is compiled in, which is not replaced. Returns whether it was added.
    pub fn add_discovered(&mut self, name: &str, constructor: Constructor<T>) -> bool {
        let name = name.to_lowercase();
        if self.rows.iter().any(|row| row.names.contains(&&*name)) {
            return false;
        }
        for version in Versions::Initial.keys() {
            self.entries.insert(
                (name.clone(), version.to_owned()),
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
        let lower = type_name.to_lowercase();
        let name = lower
            .strip_prefix(self.category)
            .and_then(|rest| rest.strip_prefix('.'));
        self.look_up(name.unwrap_or_default(), version)
            .ok_or_else(|| self.missing(type_name, version))
    }

    /// As [`Table::find`], by the type without its category: a Configuration
    /// names its resolver `mdns`, not `nameresolution.mdns`.
    pub fn find_by_name(&self, name: &str, version: &str) -> Result<Found<T>, Missing> {
        self.look_up(&name.to_lowercase(), version)
            .ok_or_else(|| self.missing(name, version))
    }

    fn look_up(&self, name: &str, version: &str) -> Option<Found<T>> {
        let key = (name.to_owned(), version.to_lowercase());
        let registered = self.entries.get(&key)?;
        let warning = match registered.versions {
            Versions::Deprecated {
                version, preferred, ..
            } => {
                let Table { category, noun, .. } = self;
                Some(format!(
                    "WARNING: {noun} {category}.{name}/{version} is deprecated and will be removed in a future version, please use {category}.{name}/{preferred}"
                ))
            }
            Versions::Initial | Versions::Named { .. } => None,
        };
        Some(Found {
            constructor: registered.constructor.clone(),
            warning,
        })
    }

    fn missing(&self, asked: &str, version: &str) -> Missing {
        Missing {
            noun: self.noun,
            asked: asked.to_owned(),
            version: version.to_owned(),
        }
    }

    /// What is compiled in, in order, with the category of its types.
    fn rows(&self) -> impl Iterator<Item = (&'static str, &Row)> {
        self.rows.iter().map(|row| (self.category, row))
    }
}

/// All components that a process can make, one table for each building block.
/// A value, so that tests build their own.
pub struct Registry {
    /// State stores.
    pub state: Table<dyn state::Store>,
    /// Brokers.
    pub pubsub: Table<dyn pubsub::Broker>,
    /// Bindings.
    pub bindings: Table<bindings::Binding>,
    /// Language models.
    pub conversation: Table<dyn Conversation>,
    /// Stores of keys.
    pub crypto: Table<dyn Crypto>,
    /// Secret stores.
    pub secrets: Table<dyn secrets::Store>,
    /// Configuration stores.
    pub configuration: Table<dyn configuration::Store>,
    /// Lock stores.
    pub lock: Table<dyn lock::Store>,
    /// HTTP middleware; names begin with `http.`.
    pub middleware: Table<dyn middleware::Middleware>,
    /// Name resolvers.
    pub nameresolution: Table<dyn resolve::Resolver>,
}

impl Registry {
    /// A registry without any component.
    pub fn new() -> Registry {
        Registry {
            state: Table::new("state", "state store"),
            pubsub: Table::new("pubsub", "message bus"),
            bindings: Table::new("bindings", "binding"),
            conversation: Table::new("conversation", "conversation"),
            crypto: Table::new("crypto", "crypto provider"),
            secrets: Table::new("secretstores", "secret store"),
            configuration: Table::new("configuration", "configuration store"),
            lock: Table::new("lock", "lock store"),
            middleware: Table::new("middleware", "HTTP middleware"),
            nameresolution: Table::new("nameresolution", "name resolver"),
        }
    }

    /// Everything that is compiled in, block by block: the category, such as
    /// `state`, and the row.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &Row)> {
        self.state
            .rows()
            .chain(self.pubsub.rows())
            .chain(self.bindings.rows())
            .chain(self.conversation.rows())
            .chain(self.crypto.rows())
            .chain(self.secrets.rows())
            .chain(self.configuration.rows())
            .chain(self.lock.rows())
            .chain(self.middleware.rows())
            .chain(self.nameresolution.rows())
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

    async fn fail<T: ?Sized>(_: Metadata, _: Context) -> Result<Arc<T>, Error> {
        Err(Error::unavailable("no connection"))
    }

    fn row(names: &'static [&'static str], versions: Versions) -> Row {
        Row {
            names,
            versions,
            status: Status::Alpha,
            tested: Tested::Unit("nothing"),
            fields: &[],
            file: "nowhere",
        }
    }

    #[tokio::test]
    async fn the_initial_version_is_found_as_v1_v0_or_none() {
        let mut registry = Registry::new();
        registry
            .state
            .register(row(&["sqlite", "sqlite3"], Versions::Initial), fail)
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
            assert_eq!(error.to_string(), "no connection");
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
            .register(row(&["etcd"], old), fail)
            .expect("is new");
        registry
            .state
            .register(row(&["etcd"], new), fail)
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
    fn types_need_their_category_and_names_have_none() {
        let mut registry = Registry::new();
        registry
            .nameresolution
            .register(row(&["mdns"], Versions::Initial), fail)
            .expect("is new");
        let table = &registry.nameresolution;
        assert!(table.find("nameresolution.mdns", "v1").is_ok());
        assert!(table.find_by_name("mDNS", "").is_ok());
        for (missing, error) in [
            (
                table.find("mdns", "v1"),
                "couldn't find name resolver mdns/v1",
            ),
            (
                table.find_by_name("dns", "v1"),
                "couldn't find name resolver dns/v1",
            ),
        ] {
            assert_eq!(missing.err().expect("is not there").to_string(), error);
        }
    }

    #[test]
    fn names_are_registered_once() {
        let mut registry = Registry::new();
        registry
            .state
            .register(row(&["x"], Versions::Initial), fail)
            .expect("is new");
        let twice = registry
            .state
            .register(row(&["y", "x"], Versions::Initial), fail);
        assert!(twice.is_err());
    }
}
