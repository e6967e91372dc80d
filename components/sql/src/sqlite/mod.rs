//! SQLite, which is compiled in.

mod connection;
mod schema;
pub mod state;
mod sweep;
