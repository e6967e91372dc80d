//! Other sidecars: finding them, calls to them, calls from them. Knows no
//! building block.

pub mod call;
pub mod local;
pub mod reach;
pub mod serve;
pub mod wire;
