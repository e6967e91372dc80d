//! SQLite, which is compiled in.

pub mod connection;
pub mod schema;
pub mod state;
pub mod sweep;
