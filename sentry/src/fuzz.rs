//! What reads bytes of clients, for the crate `outrider-fuzz`.

use crate::ca::PublicKey;

/// A certificate signing request.
pub fn request(pem: &[u8]) {
    let _ = PublicKey::from_request(pem);
}
