//! Drives a real daprd through the unmodified Rust SDK.
//!
//! `OUTRIDER_DAPRD` names the binary, ours or any other. Sidecars find each
//! other through a database of each test; `OUTRIDER_NAMES=mdns` is for binaries
//! that do not know this.

mod actors;
mod app;
mod blocks;
mod invoke;
mod jobs;
mod platform;
mod pubsub;
mod servers;
mod sidecar;
mod state;
