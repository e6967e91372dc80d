//! The listeners and what every request passes before it reaches the API.

pub mod body;
pub mod connection;
pub mod grpc;
pub mod http;
pub mod internal;
pub mod limit;
pub mod path;
pub mod phase;
pub mod public;
pub mod stream;
pub mod token;
