//! Sentry as a process, spoken to with our own client.

mod cluster;
mod sentry;
mod standalone;
mod tokens;
