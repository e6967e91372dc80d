//! Keys of this machine.

pub mod localstorage;
