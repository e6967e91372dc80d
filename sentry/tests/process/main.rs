//! Sentry as a process, called by our own client.

// Helpers of tests are not inside of test functions, which is where the lints look.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod cluster;
mod sentry;
mod standalone;
mod tokens;
