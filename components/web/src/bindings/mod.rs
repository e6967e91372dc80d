//! Bindings.

pub mod http;
