//! Actors, as this sidecar has part in them: which types its application hosts,
//! where each actor is, whose turn it is, and calls to all of them.
//! <https://docs.dapr.io/developing-applications/building-blocks/actors/>

pub mod actor;
pub mod actors;
pub mod any;
pub mod apps;
pub mod beat;
pub mod error;
mod held;
pub mod hosting;
pub mod hosts;
pub mod message;
pub mod names;
pub mod placement;
pub mod reminders;
pub mod remote;
pub mod routing;
pub mod serve;
pub mod table;
pub mod timers;
mod turn;
pub mod waiting;

pub use actor::Actor;
pub use actors::{Actors, Call, HasStore, Options, Ownership, Status};
pub use error::Error;
pub use message::{Answer, Message, Reminder, Timer};
pub use routing::Owner;

const SCOPE: &str = "dapr.runtime.actor";
/// What calls of one chain carry.
pub const CHAIN: &str = "Dapr-Reentrancy-Id";
