//! Bytes on the sidecar's connections: bodies, gRPC framing, paths, the
//! listeners of clients, and pools of HTTP/2 connections to servers.

pub mod body;
pub mod connection;
mod expiry;
pub mod grpc;
pub mod limit;
pub mod path;
pub mod pool;
pub mod server;
