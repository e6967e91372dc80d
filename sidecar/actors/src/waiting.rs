//! How much may wait for actors that are busy. Callers may be gone before it is
//! their turn, and nobody can tell: what waits has to have an end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::actor::Actor;

/// Calls that wait for one actor, behind the one that it is busy with.
const MOST_CALLS: usize = 1000;
/// Bytes of the bodies of all calls that wait.
const MOST_BYTES: usize = 64 << 20;

/// Why a call may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{MOST_CALLS} calls wait for the actor already: call it again later")]
    Calls,
    #[error("calls with {MOST_BYTES} bytes wait for actors already: call it again later")]
    Bytes,
}

/// Counts calls that wait. Cloning shares it.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// Those that are under way as well.
    calls: HashMap<Actor, usize>,
    bytes: usize,
}

/// A call that is counted until it is dropped.
pub struct Place {
    waiting: Waiting,
    actor: Actor,
    bytes: usize,
}

impl Waiting {
    /// Lets a call with a body of so many bytes wait for an actor. The first one
    /// finds its actor free: it may have any size.
    pub fn admit(&self, actor: &Actor, bytes: usize) -> Result<Place, Full> {
        let mut counts = self.counts();
        let before = counts.calls.get(actor).copied().unwrap_or_default();
        let bytes = if before == 0 { 0 } else { bytes };
        if before > MOST_CALLS {
            return Err(Full::Calls);
        }
        if counts.bytes.saturating_add(bytes) > MOST_BYTES {
            return Err(Full::Bytes);
        }
        counts.calls.insert(actor.clone(), before + 1);
        counts.bytes += bytes;
        Ok(Place {
            waiting: self.clone(),
            actor: actor.clone(),
            bytes,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.waiting.counts();
        counts.bytes -= self.bytes;
        if let Some(calls) = counts.calls.get_mut(&self.actor) {
            *calls -= 1;
            if *calls == 0 {
                counts.calls.remove(&self.actor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(id: &str) -> Actor {
        Actor::new("t", id)
    }

    #[test]
    fn an_actor_has_so_many_calls_that_wait_and_no_more() {
        let waiting = Waiting::default();
        let admit = |id| waiting.admit(&actor(id), 10);
        let mut places: Vec<_> = (0..=MOST_CALLS).map(|_| admit("a").unwrap()).collect();
        assert_eq!(admit("a").err(), Some(Full::Calls));
        assert!(admit("b").is_ok(), "another one is not concerned");
        places.pop();
        assert!(admit("a").is_ok());
        places.clear();
        let counts = waiting.counts();
        assert_eq!((counts.calls.len(), counts.bytes), (0, 0));
    }

    #[test]
    fn bodies_that_wait_are_bounded_over_all_actors() {
        let waiting = Waiting::default();
        let admit = |id, bytes| waiting.admit(&actor(id), bytes);
        let _busy = [admit("a", MOST_BYTES), admit("b", MOST_BYTES)].map(Result::unwrap);
        let first = admit("a", MOST_BYTES - 1).unwrap();
        assert_eq!(admit("b", 2).err(), Some(Full::Bytes));
        assert_eq!(admit("b", usize::MAX).err(), Some(Full::Bytes));
        drop(first);
        assert!(admit("b", 2).is_ok());
    }
}
