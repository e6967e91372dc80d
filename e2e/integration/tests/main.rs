//! One binary for all tests, so that there is one thing to link and to run.
//! The folders mirror what the sidecar does.

mod access;
mod allow;
mod bindings;
mod configuration;
mod conversation;
mod crypto;
mod encryption;
mod flood;
mod health;
mod injector;
mod invoke;
mod jobs;
mod limits;
mod listeners;
mod lock;
mod logs;
mod metadata;
mod metrics;
mod middleware;
mod mtls;
mod operator;
mod outbox;
mod placement;
mod pluggable;
mod profiling;
mod pubsub;
mod reload;
mod resiliency;
mod secrets;
mod sentry;
mod shutdown;
mod start;
mod state;
mod token;
mod tracing;
