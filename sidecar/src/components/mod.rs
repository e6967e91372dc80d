//! Components: from their resources into use and out of it. Knows building
//! blocks by [`block::Block`] only.

pub mod block;
pub mod instance;
pub mod live;
pub mod map;
pub mod resolve;
pub mod start;
