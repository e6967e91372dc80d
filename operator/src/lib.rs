//! Serves resources to sidecars, writes Events of what they report, converts them between versions, and gives apps the Services of their sidecars.

pub mod app;
mod authorise;
mod conversion;
pub mod flags;
mod reports;
mod resources;
mod secrets;
mod server;
mod services;
mod stream;
