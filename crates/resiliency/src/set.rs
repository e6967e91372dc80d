//! All policies in use, by target.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::breaker::Breaker;
use crate::breakers::Breakers;
use crate::metrics::{Metrics, Origin, Sourced, Watch};
use crate::parse::Matching;
use crate::policy::{Bundle, Name, Policy};
use crate::read::{self, Contents, Names, Scope};
use crate::retry::{Retry, Wait};
use crate::{Block, BuiltIn, Direction, SCOPE};

/// Fewest retries that a built-in policy may be given.
const FEWEST: u64 = 3;

#[derive(Debug)]
pub struct Set {
    metrics: Option<Arc<Metrics>>,
    apps: HashMap<String, App>,
    other_apps: App,
    actors: HashMap<String, Actor>,
    other_actors: Actor,
    components: HashMap<String, [Bundle; Direction::ALL.len()]>,
    other_components: [[Bundle; Direction::ALL.len()]; Block::ALL.len()],
    component_breakers: Mutex<HashMap<String, [Option<Arc<Breaker>>; Direction::ALL.len()]>>,
    /// Whether no component has any policy.
    no_components: bool,
    built_in: [Arc<Sourced<Retry>>; BuiltIn::ALL.len()],
}

#[derive(Debug)]
struct App {
    bundle: Bundle,
    breakers: Breakers,
}

#[derive(Debug)]
struct Actor {
    bundle: Bundle,
    scope: Scope,
    breakers: Breakers,
}

impl Set {
    pub fn new(mut contents: Contents, metrics: Option<Arc<Metrics>>) -> Self {
        let built_in = BuiltIn::ALL.map(|name| built_in(name, &mut contents.retries));
        let apps = std::mem::take(&mut contents.apps);
        let actors = std::mem::take(&mut contents.actors);
        let components = std::mem::take(&mut contents.components);
        let names = contents;
        let apps = apps.into_iter().map(|(id, app)| {
            let bundle = names.bundle(&app.names, "app", &id);
            let breakers = Breakers::new(app.breakers);
            (id, App { bundle, breakers })
        });
        let actors = actors.into_iter().map(|(kind, actor)| {
            let made = Actor {
                bundle: names.bundle(&actor.names, "actor", &kind),
                scope: actor.scope,
                breakers: Breakers::new(actor.breakers),
            };
            (kind, made)
        });
        let components: HashMap<_, _> = components
            .into_iter()
            .map(|(name, component)| {
                let bundles = Direction::ALL.map(|direction| {
                    let given = match direction {
                        Direction::Inbound => &component.inbound,
                        Direction::Outbound => &component.outbound,
                    };
                    names.bundle(given, "component", &name)
                });
                (name, bundles)
            })
            .collect();
        let other_components = Block::ALL.map(|block| {
            Direction::ALL.map(|direction| {
                let direction = match direction {
                    Direction::Inbound => "Inbound",
                    Direction::Outbound => "Outbound",
                };
                names.default_bundle(&[
                    &format!("{}Component{direction}", block.name()),
                    &format!("Component{direction}"),
                    "Component",
                ])
            })
        });
        let no_components = components
            .values()
            .chain(&other_components)
            .flatten()
            .all(Bundle::is_empty);
        Self {
            apps: apps.collect(),
            other_apps: App {
                bundle: names.default_bundle(&["App"]),
                // Endpoints of several apps.
                breakers: Breakers::new(10 * read::ENDPOINTS),
            },
            actors: actors.collect(),
            other_actors: Actor {
                bundle: names.default_bundle(&["Actor"]),
                scope: Scope::Type,
                breakers: Breakers::new(read::ENDPOINTS),
            },
            components,
            other_components,
            component_breakers: Mutex::default(),
            no_components,
            built_in,
            metrics,
        }
    }

    pub fn app(&self, id: &str, endpoint: impl FnOnce() -> String) -> Option<Policy> {
        let app = self.named_app(id).unwrap_or(&self.other_apps);
        if app.bundle.is_empty() {
            return None;
        }
        let endpoint = endpoint();
        let watch = self.watch(Direction::Outbound, || format!("app_{id}"));
        let breaker = app.bundle.breaker.as_ref().map(|settings| {
            let new = || Breaker::new(endpoint.clone(), settings, watch.clone());
            app.breakers.get(&endpoint, new)
        });
        let name = Name::Endpoint(id.to_owned(), endpoint);
        Some(policy(name, &app.bundle, breaker, watch))
    }

    /// An app may be called with its namespace behind it.
    fn named_app(&self, id: &str) -> Option<&App> {
        self.apps.get(id).or_else(|| {
            let (bare, _) = id.split_once('.')?;
            self.apps.get(bare)
        })
    }

    pub fn stands_in_for_built_in(&self, app: &str) -> bool {
        self.named_app(app).is_some() || self.other_apps.bundle.retry.is_some()
    }

    pub fn actor_before_lock(&self, kind: &str, id: &str) -> Option<Policy> {
        let actor = self.actors.get(kind).unwrap_or(&self.other_actors);
        let bundle = Bundle {
            timeout: None,
            ..actor.bundle.clone()
        };
        if bundle.is_empty() {
            return None;
        }
        let watch = self.watch(Direction::Outbound, || format!("actor_{kind}"));
        let breaker = bundle.breaker.as_ref().map(|settings| {
            let key = match actor.scope {
                Scope::Type => kind.to_owned(),
                Scope::Id => format!("{kind}-{id}"),
            };
            let new = || Breaker::new(key.clone(), settings, watch.clone());
            actor.breakers.get(&key, new)
        });
        let name = Name::Actor(kind.to_owned(), id.to_owned());
        Some(policy(name, &bundle, breaker, watch))
    }

    pub fn actor_after_lock(&self, kind: &str, id: &str) -> Option<Policy> {
        let actor = self.actors.get(kind).unwrap_or(&self.other_actors);
        let timeout = actor.bundle.timeout.clone()?;
        let bundle = Bundle {
            timeout: Some(timeout),
            ..Bundle::default()
        };
        let watch = self.watch(Direction::Outbound, || format!("actor_{kind}"));
        let name = Name::Actor(kind.to_owned(), id.to_owned());
        Some(policy(name, &bundle, None, watch))
    }

    pub fn component(&self, name: &str, block: Block, direction: Direction) -> Option<Policy> {
        if self.no_components {
            return None;
        }
        let bundles = self.components.get(name);
        let bundles = bundles.unwrap_or(&self.other_components[block as usize]);
        let bundle = &bundles[direction as usize];
        if bundle.is_empty() {
            return None;
        }
        let watch = self.watch(direction, || format!("{}_{name}", block.name()));
        let breaker = bundle.breaker.as_ref().map(|settings| {
            let mut all = self
                .component_breakers
                .lock()
                .unwrap_or_else(|e| e.into_inner());
            if !all.contains_key(name) {
                all.insert(name.to_owned(), Default::default());
            }
            let kept = all.get_mut(name).map(|all| &mut all[direction as usize]);
            let new = || {
                let name = format!("{}-{name}", settings.name);
                Arc::new(Breaker::new(name, settings, watch.clone()))
            };
            match kept {
                Some(kept) => kept.get_or_insert_with(new).clone(),
                None => new(),
            }
        });
        let name = match direction {
            Direction::Inbound => Name::Input(name.to_owned()),
            Direction::Outbound => Name::Output(name.to_owned()),
        };
        Some(policy(name, bundle, breaker, watch))
    }

    pub fn built_in(&self, name: BuiltIn) -> Policy {
        let bundle = Bundle {
            retry: Some(self.built_in[name as usize].clone()),
            ..Bundle::default()
        };
        policy(Name::BuiltIn(name.name()), &bundle, None, None)
    }

    fn watch(&self, direction: Direction, target: impl FnOnce() -> String) -> Option<Watch> {
        let metrics = self.metrics.as_ref()?;
        Some(Watch::new(metrics, direction, target()))
    }
}

fn policy(
    name: Name,
    bundle: &Bundle,
    breaker: Option<Arc<Breaker>>,
    watch: Option<Watch>,
) -> Policy {
    Policy {
        name,
        bundle: bundle.clone(),
        breaker,
        watch,
        stop: None,
    }
}

fn built_in(
    name: BuiltIn,
    retries: &mut BTreeMap<String, Arc<Sourced<Retry>>>,
) -> Arc<Sourced<Retry>> {
    let shown = name.name();
    let default = || {
        Arc::new(Sourced {
            value: default_retry(name),
            origin: Arc::<Origin>::default(),
        })
    };
    let given = match retries.get_mut(shown) {
        None => {
            let default = default();
            retries.insert(shown.to_owned(), default.clone());
            return default;
        }
        Some(given) => given,
    };
    if name == BuiltIn::ActorNotFound {
        tracing::warn!(target: SCOPE, "Attempted to override protected policy {shown} which is not allowed. Ignoring provided policy and using default.");
        *given = default();
    } else if given.most.is_none_or(|most| most < FEWEST) {
        tracing::warn!(target: SCOPE, "Attempted override of {shown} did not meet minimum retry count, resetting to 3.");
        *given = Arc::new(Sourced {
            value: Retry {
                most: Some(FEWEST),
                ..given.value.clone()
            },
            origin: given.origin.clone(),
        });
    }
    given.clone()
}

fn default_retry(name: BuiltIn) -> Retry {
    let second = Wait::Constant(Duration::from_secs(1));
    let (wait, most) = match name {
        BuiltIn::Service | BuiltIn::Actor => (second, 3),
        BuiltIn::ActorNotFound => (second, 5),
        BuiltIn::ActorReminder => (Wait::exponential(Duration::from_secs(60)), 0),
        BuiltIn::Initialization => (
            Wait::Exponential {
                longest: Duration::from_secs(1),
                within: Duration::from_secs(10),
            },
            3,
        ),
    };
    Retry {
        wait,
        most: Some(most),
        matching: Matching::default(),
    }
}

impl Contents {
    /// The policies of these names; one that does not exist is logged and does
    /// not apply.
    fn bundle(&self, names: &Names, kind: &str, target: &str) -> Bundle {
        fn find<T>(
            all: &BTreeMap<String, Arc<T>>,
            name: &str,
            missing: impl FnOnce(),
        ) -> Option<Arc<T>> {
            let found = all.get(name);
            if found.is_none() && !name.is_empty() {
                missing();
            }
            found.cloned()
        }
        let missing = |what: &str, name: &str| {
            tracing::warn!(target: SCOPE, "resiliency of {kind} {target}: there is no {what} called {name}, so none applies: define it or correct the name");
        };
        Bundle {
            timeout: find(&self.timeouts, &names.timeout, || {
                missing("timeout", &names.timeout);
            })
            .filter(|timeout| !timeout.is_zero()),
            retry: find(&self.retries, &names.retry, || {
                missing("retry", &names.retry);
            }),
            breaker: find(&self.breakers, &names.breaker, || {
                missing("circuit breaker", &names.breaker);
            }),
        }
    }

    /// The policies for targets without an entry, found by their names. The
    /// first of `levels` goes first.
    fn default_bundle(&self, levels: &[&str]) -> Bundle {
        fn find<T>(all: &BTreeMap<String, Arc<T>>, levels: &[&str], kind: &str) -> Option<Arc<T>> {
            let mut names = levels.iter().copied().chain([""]);
            names
                .find_map(|level| all.get(&format!("Default{level}{kind}Policy")))
                .cloned()
        }
        Bundle {
            timeout: find(&self.timeouts, levels, "Timeout").filter(|timeout| !timeout.is_zero()),
            retry: find(&self.retries, levels, "Retry"),
            breaker: find(&self.breakers, levels, "CircuitBreaker"),
        }
    }
}
