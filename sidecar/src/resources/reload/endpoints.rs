//! HTTPEndpoint resources that change while the sidecar runs.

use outrider_crds::HttpEndpoint;
use tokio::sync::mpsc;

use super::follow::Follow;
use super::{Restart, SCOPE};
use crate::resources::operator::{Error, Operator};

/// The HTTPEndpoints in use, as they were read. A change takes a fresh start.
#[derive(Clone)]
pub struct Endpoints(pub Vec<HttpEndpoint>);

/// A resource that only a fresh start takes in.
pub struct Changed {
    what: &'static str,
    name: String,
}

impl Changed {
    pub fn tell(&self) {
        let Self { what, name } = self;
        tracing::info!(target: SCOPE, "Received HTTPEndpoint {what} event: {name} - triggering SIGHUP reload");
    }
}

impl Endpoints {
    /// The first difference to what is wanted.
    pub fn change(&self, wanted: &[HttpEndpoint]) -> Option<Changed> {
        let named = |all: &[HttpEndpoint], name: &str| {
            let mut all = all.iter();
            all.find(|endpoint| endpoint.metadata.name == name).cloned()
        };
        let changed = |what, endpoint: &HttpEndpoint| Changed {
            what,
            name: format!("{} ({})", endpoint.metadata.name, endpoint.spec.base_url),
        };
        let gone = self
            .0
            .iter()
            .find(|endpoint| named(wanted, &endpoint.metadata.name).is_none());
        if let Some(endpoint) = gone {
            return Some(changed("DELETED", endpoint));
        }
        wanted
            .iter()
            .find_map(|endpoint| match named(&self.0, &endpoint.metadata.name) {
                None => Some(changed("CREATED", endpoint)),
                Some(before) => {
                    let same = before.spec == endpoint.spec && before.auth == endpoint.auth;
                    (!same).then(|| changed("UPDATED", endpoint))
                }
            })
    }
}

/// Demands a restart at the first change that the operator sends.
pub struct Following {
    pub endpoints: Endpoints,
    pub demands: mpsc::UnboundedSender<Restart>,
}

impl Follow for Following {
    const WATCHED: &'static str = "HTTPEndpoint updates for SIGHUP reload";

    async fn stream(&mut self, operator: &Operator, alive: &mut bool) -> Result<(), Error> {
        let mut events = operator.http_endpoint_events().await?;
        let mut wanted = operator.http_endpoints().await?;
        *alive = true;
        loop {
            if let Some(changed) = self.endpoints.change(&wanted) {
                changed.tell();
                // There is no receiver when the process is already ending.
                let _ = self.demands.send(Restart);
                return Ok(());
            }
            let change = events.next().await?;
            change.amend(&mut wanted, |endpoint| operator.sees(endpoint));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, base_url: &str, label: &str) -> HttpEndpoint {
        let mut endpoint = HttpEndpoint::default();
        endpoint.metadata.name = name.to_owned();
        endpoint.metadata.namespace = label.to_owned();
        endpoint.spec.base_url = base_url.to_owned();
        endpoint
    }

    #[test]
    fn changes_of_endpoints() {
        let (a, b) = (endpoint("a", "http://a", ""), endpoint("b", "http://b", ""));
        let endpoints = Endpoints(vec![a.clone(), b.clone()]);
        let change = |wanted: &[HttpEndpoint]| endpoints.change(wanted).map(|c| (c.what, c.name));
        assert_eq!(
            change(&[b.clone(), endpoint("a", "http://a", "else")]),
            None
        );
        for (wanted, what, name) in [
            (vec![a.clone()], "DELETED", "b (http://b)"),
            (
                vec![a.clone(), endpoint("b", "http://c", "")],
                "UPDATED",
                "b (http://c)",
            ),
            (
                vec![a, b, endpoint("c", "http://c", "")],
                "CREATED",
                "c (http://c)",
            ),
        ] {
            assert_eq!(change(&wanted), Some((what, name.to_owned())));
        }
    }
}
