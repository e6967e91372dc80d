//! Secret stores.

pub mod vault;
