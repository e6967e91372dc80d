//! The Kubernetes API as the control plane uses it: objects stay the JSON that the server sent, so that nothing
//! is lost between the API server and a sidecar.

mod client;
pub mod lease;
pub mod objects;
pub mod trust;
pub mod watch;
pub mod webhook;

pub use client::{ClientError, client};
pub use kube::Client;
pub use kube::Error;

/// Whether the server said that there is no such thing.
pub fn is_not_found(error: &Error) -> bool {
    status_code(error) == Some(404)
}

fn status_code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}
