//! What is known about where actors are, at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::actor::Actor;
use crate::hosts::{Host, Tables};

/// Where an actor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// In this sidecar's application.
    Local,
    Remote(Host),
}

/// Never changed: a change makes a new one.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Numbers those of one process upwards.
    pub fence: u64,
    pub known: Known,
}

#[derive(Debug, Clone)]
pub enum Known {
    /// There is no placement.
    Disabled,
    /// No table is valid now: one will come.
    Nothing,
    Settled(Arc<Tables>),
    /// A round is under way. Actors that have the same owner in both are where
    /// they are; the others are on their way.
    Moving {
        from: Arc<Tables>,
        to: Arc<Tables>,
        /// Types whose next hosts are not known yet: their actors wait as well.
        locked: Arc<BTreeSet<Arc<str>>>,
    },
    /// The sidecar ends.
    Closed,
}

impl Known {
    pub fn moving(from: Arc<Tables>, to: Arc<Tables>) -> Self {
        Self::Moving {
            from,
            to,
            locked: Arc::default(),
        }
    }

    /// Whether valid tables have no actor on this host, nor on its way to or
    /// from it.
    pub fn has_left(&self, address: &str) -> bool {
        match self {
            Self::Settled(tables) => !tables.is_host(address),
            Self::Moving { from, to, .. } => !from.is_host(address) && !to.is_host(address),
            Self::Disabled | Self::Nothing | Self::Closed => false,
        }
    }
}

/// What a look-up finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    At(Owner),
    /// No host has the type.
    Nobody,
    /// It will be known later.
    Wait,
    Disabled,
    Closed,
}

impl Routing {
    pub fn find(&self, kind: &str, id: &str, own: &str) -> Found {
        let owner = match &self.known {
            Known::Disabled => return Found::Disabled,
            Known::Closed => return Found::Closed,
            Known::Nothing => return Found::Wait,
            Known::Settled(tables) => tables.owner(kind, id),
            Known::Moving { locked, .. } if locked.contains(kind) => return Found::Wait,
            Known::Moving { from, to, .. } => {
                let owner = to.owner(kind, id);
                if !to.shares(from, kind) && from.owner(kind, id) != owner {
                    return Found::Wait;
                }
                owner
            }
        };
        match owner {
            None => Found::Nobody,
            Some(host) if is_same(&host.address, own) => Found::At(Owner::Local),
            Some(host) => Found::At(Owner::Remote(host.clone())),
        }
    }
}

impl Routing {
    /// Whether an actor that is active here may write its state; none if that
    /// will be known later. One that has to go still may: its next owner waits
    /// until it is gone.
    pub fn writes(&self, actor: &Actor, own: &str) -> Option<bool> {
        let is_own = |tables: &Tables| {
            let owner = tables.owner(&actor.kind, &actor.id);
            owner.is_some_and(|host| is_same(&host.address, own))
        };
        match &self.known {
            Known::Disabled => Some(false),
            Known::Nothing => None,
            Known::Settled(tables) => Some(is_own(tables)),
            Known::Moving { from, .. } => is_own(from).then_some(true),
            Known::Closed => Some(true),
        }
    }
}

/// Whether two addresses are the same; names of the loopback are.
pub fn is_same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let loopback = |address: &str| {
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        matches!(host, "localhost" | "127.0.0.1" | "::1").then(|| port.to_owned())
    };
    loopback(one).is_some_and(|port| Some(port) == loopback(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(hosts: &[&str]) -> Arc<Tables> {
        let hosts = hosts.iter().map(|host| ((*host).to_owned(), String::new()));
        Arc::new(Tables::rings([("t".into(), hosts.collect())].into(), 100))
    }

    #[test]
    fn only_actors_that_move_wait_for_a_round() {
        let (from, to) = (tables(&["a:1", "b:2"]), tables(&["a:1", "b:2", "c:3"]));
        let known = Known::moving(from.clone(), to.clone());
        let routing = Routing { fence: 1, known };
        let (mut moves, mut stays) = (0, 0);
        for id in (0..100).map(|id| id.to_string()) {
            let found = routing.find("t", &id, "a:1");
            if from.owner("t", &id) == to.owner("t", &id) {
                assert!(matches!(found, Found::At(_)));
                stays += 1;
            } else {
                assert_eq!(found, Found::Wait);
                moves += 1;
            }
        }
        assert!(moves > 10 && stays > 10);
        assert_eq!(routing.find("other", "1", "a:1"), Found::Nobody);
    }

    #[test]
    fn actors_of_a_locked_type_wait_wherever_they_are() {
        let hosts: std::collections::BTreeMap<_, _> = [("a:1".to_owned(), String::new())].into();
        let types = [("t".into(), hosts.clone()), ("u".into(), hosts)].into();
        let tables = Arc::new(Tables::default().with(types));
        let known = Known::Moving {
            from: tables.clone(),
            to: tables,
            locked: Arc::new(["t".into()].into()),
        };
        let routing = Routing { fence: 1, known };
        assert_eq!(routing.find("t", "1", "a:1"), Found::Wait);
        assert_eq!(routing.find("u", "1", "a:1"), Found::At(Owner::Local));
        let own = Actor::new("t", "1");
        assert_eq!(routing.writes(&own, "a:1"), Some(true), "it has not gone");
    }

    #[test]
    fn an_actor_that_has_to_go_writes_until_it_is_gone() {
        let (own, other) = (tables(&["a:1"]), tables(&["b:2"]));
        let writes = |known| {
            let routing = Routing { fence: 1, known };
            routing.writes(&Actor::new("t", "1"), "a:1")
        };
        let known = Known::moving(own.clone(), other.clone());
        assert_eq!(writes(known), Some(true));
        let known = Known::moving(other.clone(), own.clone());
        assert_eq!(writes(known), None);
        assert_eq!(writes(Known::Settled(own)), Some(true));
        assert_eq!(writes(Known::Settled(other)), Some(false));
        assert_eq!(writes(Known::Nothing), None);
    }

    #[test]
    fn names_of_the_loopback_are_one_host() {
        assert!(is_same("localhost:5", "127.0.0.1:5"));
        assert!(!is_same("localhost:5", "127.0.0.1:6"));
        assert!(!is_same("10.0.0.1:5", "127.0.0.1:5"));
    }
}
