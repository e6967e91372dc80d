//! The building blocks, one folder or file each. An operation is written once
//! in `ops.rs`; `http.rs` and `grpc.rs` decode and encode.

pub mod error;
pub mod health;
pub mod http;
pub mod invoke;
pub mod json;
pub mod metadata;
pub mod pubsub;
pub mod secrets;
pub mod shutdown;
pub mod state;
