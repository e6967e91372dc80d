//! A call on its way to an application: the message, its headers, and the
//! channel to this sidecar's own application. Knows no building block.

pub mod channel;
pub mod headers;
pub mod message;
pub mod metadata;
pub mod method;
pub mod pipeline;
pub mod token;
