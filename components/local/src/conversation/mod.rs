//! Language models that are none.

pub mod echo;
