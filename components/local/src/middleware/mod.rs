//! HTTP middleware.

pub mod ratelimit;
pub mod routeralias;
pub mod routerchecker;
pub mod sentinel;
pub mod uppercase;
