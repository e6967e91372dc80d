//! Resources: where they come from, and what their changes do.

pub mod disk;
pub mod operator;
pub mod reload;
