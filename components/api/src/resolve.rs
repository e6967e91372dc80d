//! Name resolvers: from an app id to the address of its sidecar.
//! <https://docs.dapr.io/reference/components-reference/supported-name-resolution/>

use async_trait::async_trait;

use crate::Error;

/// What a resolver tells the others about this sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// The application's id.
    pub app_id: String,
    /// The namespace; may be empty outside Kubernetes.
    pub namespace: String,
    /// The address that other sidecars reach this one at.
    pub host: String,
    /// The port of the internal gRPC server.
    pub port: u16,
}

/// Who is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The application's id.
    pub app_id: String,
    /// Its namespace; may be empty outside Kubernetes.
    pub namespace: String,
    /// The caller's own internal port, which in Kubernetes everyone shares.
    pub port: u16,
}

/// Finds sidecars.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// An address, `host:port`. With several instances, a different one each
    /// time.
    async fn resolve(&self, request: &Request) -> Result<String, Error>;

    /// Tells that nothing answered at an address, so that the next answer is
    /// another one if there is any.
    fn suspect(&self, request: &Request, address: &str) {
        let _ = (request, address);
    }

    /// Takes this sidecar's own announcement back.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
