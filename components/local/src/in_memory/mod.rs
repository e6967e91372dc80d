//! Components that live as long as the process, for development and tests.

mod like;
pub mod pubsub;
pub mod state;
