//! Failures that this sidecar found itself, as opposed to those that a peer
//! answered with.

use tonic::{Code, Status};

const LOCAL: &str = "outrider-local";

/// A failure that this sidecar itself found.
pub fn status(code: Code, message: impl Into<String>) -> Status {
    let mut local = Status::new(code, message);
    local
        .metadata_mut()
        .insert(LOCAL, tonic::metadata::MetadataValue::from_static("1"));
    local
}

/// A status as a failure that this sidecar itself found.
pub fn marked(status: Status) -> Status {
    self::status(status.code(), status.message())
}

pub fn is_local(status: &Status) -> bool {
    status.metadata().contains_key(LOCAL)
}
