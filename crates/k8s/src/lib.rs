//! The Kubernetes API as the control plane uses it: objects stay the JSON that the server sent, so that nothing
//! is lost between the API server and a sidecar.

mod client;
mod error;
pub mod lease;
pub mod objects;
pub mod trust;
pub mod watch;
pub mod webhook;

pub use client::{ClientError, client};
pub use error::Error;
pub use kube::Client;
