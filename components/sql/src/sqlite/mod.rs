//! SQLite, which is compiled in.

pub mod cleanup;
pub mod connection;
pub mod nameresolution;
pub mod schema;
pub mod state;
