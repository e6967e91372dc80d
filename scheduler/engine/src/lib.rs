//! What a scheduler decides: which jobs are accepted, when they are due, who
//! gets them and what follows from the answer. No sockets, no clock and no
//! randomness of its own: time and what happened go in, what is to be done comes
//! out.

mod engine;
mod gates;
pub mod key;
mod plan;
mod pool;
mod timing;

pub use engine::{
    Answer, Commit, Committed, Counted, Delivery, Effect, Engine, Event, Found, JobRef, Kind,
    Member, Now, Overdue, Read, Settings, StreamId, Subscription,
};
pub use gates::Limit;
pub use plan::{Invalid, plan};
pub use pool::Target;
pub use timing::{Progress, Step, Timing};
