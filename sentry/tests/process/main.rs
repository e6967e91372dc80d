//! Sentry as a process, called by our own client.

// Helpers of tests are not inside of test functions, which is where the lints look.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod cluster;
// Of the tests of all processes; the kernel gives none of these to outgoing connections.
#[path = "../../../e2e/harness/src/port.rs"]
mod port;
mod sentry;
mod standalone;
mod tokens;
