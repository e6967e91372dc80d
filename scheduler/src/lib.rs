//! Keeps jobs in a store, and triggers them on sidecars when they are due.

mod api;
pub mod app;
pub mod child;
mod cluster;
mod data;
mod etcd;
pub mod flags;
mod jobs;
mod kv;
mod listener;
mod member;
mod metrics;
mod namespaces;
mod placement;
mod runner;
mod server;
