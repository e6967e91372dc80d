//! Other sidecars: connections to them, calls in both directions.

pub mod call;
pub mod connection;
pub mod pool;
pub mod serve;
pub mod wire;
