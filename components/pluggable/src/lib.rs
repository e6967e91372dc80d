//! Components that other programs serve on unix sockets:
//! <https://docs.dapr.io/developing-applications/develop-components/pluggable-components/>.
//!
//! The name of a socket, without its extension, is the name of the component's
//! type; the gRPC services of the program say which building blocks it has.

mod bindings;
mod connection;
mod discover;
mod error;
mod pubsub;
mod secrets;
mod state;

pub use discover::register;
