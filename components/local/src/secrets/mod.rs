//! Secrets of the machine the sidecar runs on.

pub mod env;
pub mod file;
