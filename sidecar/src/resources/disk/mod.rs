//! Resource files of a sidecar outside Kubernetes.

mod load;
pub mod watch;

pub use load::Folders;
