//! Components that other programs serve on unix sockets:
//! <https://docs.dapr.io/developing-applications/develop-components/pluggable-components/>.
//!
//! The name of a socket, without its extension, is the name of the component's
//! type; what the program serves says which building blocks it belongs to.

mod discover;
mod error;
mod link;
mod pubsub;
mod secrets;
mod state;

pub use discover::register;
