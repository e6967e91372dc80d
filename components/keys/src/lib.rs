//! Keys that the sidecar itself works with: their forms, and what is done with
//! them. Where they are kept is a component's business, which only has to
//! find one by its name.

mod chacha;
mod jwk;
mod key;
mod local;
mod parse;
mod pem;
mod rsa;
mod sign;
mod symmetric;
#[cfg(test)]
mod tests;
mod wrap;

use outrider_components::{Error, Kind};

pub use key::Key;
pub use local::{Keys, Local};
pub use parse::Form;

/// Why an operation on a key is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Algorithm,
    KeyType,
    Nonce,
    Tag,
    Length,
    /// The error says nothing more: who asks could learn something about the key.
    Failed,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Self::Algorithm => "unsupported algorithm",
            Self::KeyType => "key type mismatch",
            Self::Nonce => "invalid nonce",
            Self::Tag => "invalid tag",
            Self::Length => "invalid length",
            Self::Failed => "the operation failed",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::new(Kind::Invalid, refusal.text())
    }
}

impl From<aws_lc_rs::error::Unspecified> for Refusal {
    fn from(_: aws_lc_rs::error::Unspecified) -> Refusal {
        Refusal::Failed
    }
}

/// The key of this name does not exist.
pub fn not_found() -> Error {
    Error::not_found("key not found")
}
