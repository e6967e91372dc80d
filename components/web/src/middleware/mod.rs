//! HTTP middleware that asks other servers.

pub mod bearer;
mod fetch;
pub mod oauth2;
pub mod oauth2clientcredentials;
mod session;
mod token;
