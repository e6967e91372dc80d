//! Timeouts, retries and circuit breakers around calls:
//! <https://docs.dapr.io/operations/resiliency/resiliency-overview/>.
//!
//! [`Resiliency`] knows the resources; [`Resiliency::app`] and its like find
//! the [`Policy`] of a target, and [`Policy::run`] runs an operation under it:
//! outermost the retries, then the breaker, then the timeout of one attempt.
//! Where no policy applies, finding that out takes no lock and allocates nothing.

#![warn(missing_docs)]

mod breaker;
mod breakers;
mod metrics;
mod parse;
mod policy;
mod read;
mod resiliency;
mod retry;
mod set;

pub use metrics::Metrics;
pub use parse::Matching;
pub use policy::{Attempt, Error, Failure, Policy};
pub use resiliency::{LeftOut, Resiliency};

/// The log scope of lines about policies.
const SCOPE: &str = "dapr.runtime";

/// Which way a call of a component goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the component to the application.
    Inbound,
    /// From the application to the component.
    Outbound,
}

impl Direction {
    const ALL: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

    fn name(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// The kinds of components, as the names of default policies have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Block {
    Binding,
    Configuration,
    Conversation,
    Crypto,
    Lock,
    PubSub,
    SecretStore,
    StateStore,
}

impl Block {
    const ALL: [Block; 8] = [
        Block::Binding,
        Block::Configuration,
        Block::Conversation,
        Block::Crypto,
        Block::Lock,
        Block::PubSub,
        Block::SecretStore,
        Block::StateStore,
    ];

    fn name(self) -> &'static str {
        match self {
            Block::Binding => "Binding",
            Block::Configuration => "Configuration",
            Block::Conversation => "Conversation",
            Block::Crypto => "Crypto",
            Block::Lock => "Lock",
            Block::PubSub => "Pubsub",
            Block::SecretStore => "Secretstore",
            Block::StateStore => "Statestore",
        }
    }
}

/// Retries of the runtime itself. A resource may raise their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// Calls to other sidecars.
    Service,
    /// Calls to actors.
    Actor,
    /// Reminders of actors.
    ActorReminder,
    /// Actors that no host has right now; no resource changes it.
    ActorNotFound,
    /// What the runtime asks the application at its start.
    Initialization,
}

impl BuiltIn {
    const ALL: [BuiltIn; 5] = [
        BuiltIn::Service,
        BuiltIn::Actor,
        BuiltIn::ActorReminder,
        BuiltIn::ActorNotFound,
        BuiltIn::Initialization,
    ];

    fn name(self) -> &'static str {
        match self {
            BuiltIn::Service => "DaprBuiltInServiceRetries",
            BuiltIn::Actor => "DaprBuiltInActorRetries",
            BuiltIn::ActorReminder => "DaprBuiltInActorReminderRetries",
            BuiltIn::ActorNotFound => "DaprBuiltInActorNotFoundRetries",
            BuiltIn::Initialization => "DaprBuiltInInitializationRetries",
        }
    }
}
