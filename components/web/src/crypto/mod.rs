//! Keys from elsewhere.

pub mod jwks;
