//! What is known about where actors are, at one moment.

use std::sync::Arc;

use crate::ring::{Host, Tables};

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
    },
    /// The sidecar ends.
    Closed,
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
            Known::Moving { from, to } => {
                let owner = to.owner(kind, id);
                if from.owner(kind, id) != owner {
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
        Arc::new(Tables::new([("t".into(), hosts.collect())].into(), 100))
    }

    #[test]
    fn only_actors_that_move_wait_for_a_round() {
        let (from, to) = (tables(&["a:1", "b:2"]), tables(&["a:1", "b:2", "c:3"]));
        let known = Known::Moving {
            from: from.clone(),
            to: to.clone(),
        };
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
    fn names_of_the_loopback_are_one_host() {
        assert!(is_same("localhost:5", "127.0.0.1:5"));
        assert!(!is_same("localhost:5", "127.0.0.1:6"));
        assert!(!is_same("10.0.0.1:5", "127.0.0.1:5"));
    }
}
