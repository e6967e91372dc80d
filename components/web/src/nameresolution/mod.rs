//! Name resolvers.

pub mod consul;
