//! HTTPEndpoints. A change takes a fresh start.

use std::ops::ControlFlow;

use outrider_crds::HttpEndpoint;
use outrider_proto::operator::v1 as wire;
use prost::Message as _;

use super::follow::{Apply, Restart};
use super::kind::{Stored, Watch};
use super::operator::{Error, Events, Operator};
use super::wanted::differences;
use super::{Resources, SCOPE};

pub struct HttpEndpoints;

impl Watch for HttpEndpoints {
    type Resource = HttpEndpoint;
    type Event = wire::HttpEndpointUpdateEvent;

    const UPDATES: &'static str = "HTTPEndpoint updates for SIGHUP reload";

    fn same(a: &HttpEndpoint, b: &HttpEndpoint) -> bool {
        a.spec == b.spec && a.auth == b.auth
    }

    async fn list(&self, operator: &Operator) -> Result<Vec<HttpEndpoint>, Error> {
        let namespace = operator.namespace();
        let request = wire::ListHttpEndpointsRequest { namespace };
        let (sent, mut client) = (request.encoded_len(), operator.client());
        let listing = client.list_http_endpoints(request);
        let answer = operator.timed("ListHTTPEndpoints", sent, listing).await?;
        Ok(operator.scoped(&answer.http_endpoints))
    }

    async fn open(&self, operator: &Operator) -> Result<Events<Self::Event>, Error> {
        let namespace = operator.namespace();
        let request = wire::HttpEndpointUpdateRequest { namespace };
        let mut client = operator.client();
        Events::open(async move { client.http_endpoint_update(request).await }).await
    }
}

impl Stored for HttpEndpoints {
    fn take(loaded: &mut Resources) -> Vec<HttpEndpoint> {
        std::mem::take(&mut loaded.http_endpoints)
    }
}

/// Demands a restart at the first difference to what is in use.
pub struct Applier {
    pub in_use: Vec<HttpEndpoint>,
}

impl Apply<HttpEndpoints> for Applier {
    async fn apply(&mut self, wanted: Vec<HttpEndpoint>) -> ControlFlow<Restart> {
        let differences = differences::<HttpEndpoints>(&self.in_use, &wanted);
        let Some(first) = differences.first() else {
            return ControlFlow::Continue(());
        };
        let (what, endpoint) = (first.what.name(), first.resource);
        tracing::info!(target: SCOPE, "Received HTTPEndpoint {what} event: {} ({}) - triggering SIGHUP reload", endpoint.metadata.name, endpoint.spec.base_url);
        ControlFlow::Break(Restart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_what_is_called_demands_a_restart_and_one_of_metadata_does_not() {
        let endpoint = |url: &str, label: &str| {
            let mut endpoint = HttpEndpoint::default();
            endpoint.metadata.name = "a".to_owned();
            endpoint.metadata.resource_version = label.to_owned();
            endpoint.spec.base_url = url.to_owned();
            endpoint
        };
        let mut applier = Applier {
            in_use: vec![endpoint("http://a", "1")],
        };
        let unchanged = applier.apply(vec![endpoint("http://a", "2")]).await;
        assert!(unchanged.is_continue());
        for wanted in [vec![endpoint("http://b", "2")], Vec::new()] {
            assert!(applier.apply(wanted).await.is_break());
        }
    }
}
