//! Gives pods their sidecar: a mutating webhook.

pub mod app;
mod cluster;
pub mod flags;
#[doc(hidden)]
pub mod fuzz;
mod matcher;
pub mod patch;
mod review;
mod webhook;
