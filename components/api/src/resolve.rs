//! Name resolvers: from an app id to the address of its sidecar.
//! <https://docs.dapr.io/reference/components-reference/supported-name-resolution/>

use async_trait::async_trait;

use crate::Error;

/// Asks for a sidecar of an application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The application's id.
    pub app_id: &'a str,
    /// Its namespace; may be empty outside Kubernetes.
    pub namespace: &'a str,
    /// The caller's own internal port, which all sidecars in Kubernetes have.
    pub port: u16,
}

/// Finds sidecars. A resolver that other sidecars learn addresses from announces
/// this one, at the host and port of its [`Context`](crate::Context).
#[async_trait]
pub trait Resolver: Send + Sync {
    /// An address, `host:port`. With several instances, a different one each
    /// time.
    async fn resolve(&self, request: &Request<'_>) -> Result<String, Error>;

    /// Notes that nothing answered at an address, so that the next answer is
    /// another one if there is any.
    fn suspect(&self, request: &Request<'_>, address: &str) {
        let _ = (request, address);
    }

    /// Withdraws the announcement of this sidecar.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
