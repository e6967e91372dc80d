//! Logs and metrics, in the shapes that Dapr's dashboards and log pipelines
//! already read.

pub mod log;
pub mod metrics;
