//! Name resolvers: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/>.

pub mod kubernetes;
pub mod mdns;
pub mod nameformat;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A number that is random enough to spread load with.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
