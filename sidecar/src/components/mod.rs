//! Components: from their resources into use and out of it. Knows building
//! blocks by [`block::ComponentBlock`] only, and secret stores, which other
//! components need.

pub mod block;
pub mod instance;
pub mod live;
pub mod map;
pub mod resolve;
pub mod start;

/// Of log lines about components.
const SCOPE: &str = "dapr.runtime.processor";
