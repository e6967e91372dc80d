//! Applications that host actors.

pub mod config;
pub mod http;
pub mod stream;
