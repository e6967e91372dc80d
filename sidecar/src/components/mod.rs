//! Resources: where they come from, how they become components in use.

pub mod disk;
pub mod live;
pub mod operator;
pub mod reload;
pub mod resilient;
pub mod resolve;
pub mod start;
