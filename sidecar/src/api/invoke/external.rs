//! Calls to hosts outside the mesh: by URL, or by the name of an HTTPEndpoint.
//! <https://docs.dapr.io/developing-applications/building-blocks/service-invocation/howto-invoke-non-dapr-endpoints/>

use outrider_crds::HttpEndpoint;
use tonic::{Code, Status};

use super::error;
use super::message::{Request, Response};

/// Nothing yet: this release calls applications only.
pub struct Client;

impl Client {
    pub async fn url(&self, url: &str, _: Request) -> Result<Response, Status> {
        Err(absent(url))
    }

    pub async fn endpoint(&self, endpoint: &HttpEndpoint, _: Request) -> Result<Response, Status> {
        Err(absent(&endpoint.metadata.name))
    }
}

fn absent(target: &str) -> Status {
    error::local(
        Code::Unimplemented,
        format!(
            "calling {target}: hosts outside the mesh cannot be called by this release of Outrider"
        ),
    )
}
