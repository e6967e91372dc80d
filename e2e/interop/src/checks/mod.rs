//! The checks, by building block. Each runs for both orders of the two sides.

pub mod actors;
pub mod invoke;
pub mod jobs;
pub mod pubsub;
pub mod state;
