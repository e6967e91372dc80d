//! Why a call failed.

use outrider_kit::kubernetes::InvalidName;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was sent.
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Client(#[from] kube::Error),
}

impl Error {
    /// The status code of the server's answer; nothing if there was none.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the server answered that there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object was changed by somebody else since it was read.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}
