//! Bindings.

pub mod localstorage;
