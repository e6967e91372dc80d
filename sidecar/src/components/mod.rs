//! Components: from their resources into use and out of it. Knows building
//! blocks by [`block::ComponentBlock`] only, and secret stores, which other
//! components need.

pub mod block;
pub mod instance;
pub mod live;
pub mod map;
mod redact;
pub mod resolve;
pub mod start;
pub mod status;

/// Of log lines about components.
const SCOPE: &str = "dapr.runtime.processor";
