//! SQLite, which is compiled in.

pub mod connection;
pub mod nameresolution;
pub mod schema;
pub mod state;
pub mod sweep;
