//! Drives a real daprd through the unmodified Rust SDK.
//!
//! `OUTRIDER_DAPRD` names the binary, ours or any other. Sidecars find each
//! other through a database of each test; `OUTRIDER_NAMES=mdns` is for binaries
//! that do not know this.

mod app;
mod invoke;
mod platform;
mod pubsub;
mod sidecar;
mod state;
