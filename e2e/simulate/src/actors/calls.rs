//! Calls of actors, as the one who calls has them, and as the host has them.

use std::time::Duration;

use outrider_actors::Actor;

use crate::network::ConnectionId;

/// Every call has its answer by then.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How often a call follows an actor that moves, before it waits.
pub const MOVES: u32 = 4;
/// How long an answer that the actor has moved is believed to be newer than
/// what is known here.
pub const NEWER_LIMIT: Duration = Duration::from_millis(500);
/// Between two tries of a call that nobody took.
pub const PAUSE: Duration = Duration::from_secs(1);
/// How long the answers of a host may be on their way when it has left.
pub const LAST_ANSWER: Duration = Duration::from_secs(1);

/// How a try of a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nobody has run it: it may be sent again.
    Moved,
    NoHost,
    /// It may have run.
    Failed,
}

/// A call of this host's client.
pub struct Call {
    pub actor: Actor,
    pub moves: u32,
    /// Counts the tries: what was meant for an earlier one means nothing.
    pub tries: u32,
    pub place: Place,
}

/// Where a call is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Until it is known where the actor is.
    Waiting,
    /// With the number of the routing that it moved under.
    Moved(u64),
    /// Until it is tried again.
    Pausing,
    Here,
    At(ConnectionId, String),
}

/// A call whose actor is here.
pub struct Turn {
    pub call: u64,
    pub actor: Actor,
    /// None for a call of this host's client.
    pub from: Option<ConnectionId>,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Until it is known where the actor is.
    Looking,
    /// For its turn.
    Queued,
    Running,
    /// For tables that say whether it may write.
    Writing,
}
