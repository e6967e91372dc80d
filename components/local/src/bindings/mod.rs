//! Bindings.

pub mod cron;
pub mod localstorage;
