//! Small languages that flags, manifests and metadata are written in, and what
//! the standard library lacks for texts of errors, random waits and a hash that
//! all processes share. No I/O.
#![deny(missing_docs)]

pub mod boolean;
#[cfg(feature = "cron")]
pub mod cron;
pub mod duration;
pub mod environment;
pub mod error;
pub mod flags;
pub mod grpc;
pub mod kubernetes;
#[cfg(feature = "pattern")]
pub mod pattern;
#[cfg(feature = "cron")]
pub mod period;
pub mod quantity;
pub mod quote;
pub mod random;
#[cfg(feature = "rendezvous")]
pub mod rendezvous;
pub mod usage;

pub use boolean::truthy;
