//! Resiliencies. The next call has the new policies; nothing is restarted.

use std::ops::ControlFlow;
use std::sync::Arc;

use outrider_crds::Resiliency as Resource;
use outrider_proto::operator::v1 as wire;
use outrider_resiliency::Resiliency;
use prost::Message as _;

use super::follow::{Apply, Restart};
use super::kind::{Stored, Watch};
use super::operator::{Error, Events, Operator};
use super::wanted::differences;
use super::{Resources, SCOPE};
use crate::components::status::Table;

pub struct Resiliencies;

impl Watch for Resiliencies {
    type Resource = Resource;
    type Event = wire::ResiliencyUpdateEvent;

    const UPDATES: &'static str = "Resiliency updates";

    fn same(a: &Resource, b: &Resource) -> bool {
        a.metadata.namespace == b.metadata.namespace && a.spec == b.spec
    }

    async fn list(&self, operator: &Operator) -> Result<Vec<Resource>, Error> {
        let namespace = operator.namespace();
        let request = wire::ListResiliencyRequest { namespace };
        let (sent, mut client) = (request.encoded_len(), operator.client());
        let listing = client.list_resiliency(request);
        let answer = operator.timed("ListResiliency", sent, listing).await?;
        let mut resiliencies = operator.scoped(&answer.resiliencies);
        Self::arrange(&mut resiliencies);
        Ok(resiliencies)
    }

    async fn open(&self, operator: &Operator) -> Result<Events<Self::Event>, Error> {
        let namespace = operator.namespace();
        let request = wire::ResiliencyUpdateRequest { namespace };
        let mut client = operator.client();
        Events::open(async move { client.resiliency_update(request).await }).await
    }

    /// Later resources go before earlier ones, so the order must not depend on
    /// when they came.
    fn arrange(resources: &mut [Resource]) {
        resources.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    }
}

impl Stored for Resiliencies {
    fn take(loaded: &mut Resources) -> Vec<Resource> {
        std::mem::take(&mut loaded.resiliencies)
    }
}

/// Keeps the policies in use as they are wanted.
pub struct Applier {
    resiliency: Resiliency,
    status: Arc<Table>,
    in_use: Vec<Resource>,
}

impl Applier {
    /// Uses what there is at the start.
    pub fn new(resiliency: Resiliency, status: Arc<Table>, wanted: Vec<Resource>) -> Self {
        let mut applier = Self {
            resiliency,
            status,
            in_use: Vec::new(),
        };
        applier.replace(wanted);
        applier
    }

    fn replace(&mut self, wanted: Vec<Resource>) {
        let left_out = self.resiliency.replace(&wanted);
        for resource in &wanted {
            let name = &resource.metadata.name;
            match left_out.iter().find(|left| left.name == *name) {
                Some(left) => self.status.failed::<Resource>(name, &left.cause),
                None => self.status.running::<Resource>(name),
            }
        }
        self.in_use = wanted;
    }
}

impl Apply<Resiliencies> for Applier {
    async fn apply(&mut self, wanted: Vec<Resource>) -> ControlFlow<Restart> {
        for different in differences::<Resiliencies>(&self.in_use, &wanted) {
            let (what, name) = (different.what.name(), &different.resource.metadata.name);
            tracing::info!(target: SCOPE, "Received Resiliency {what} event: {name}");
        }
        // Their order counts too, and there may be several of one name.
        let same = |(a, b): (&Resource, &Resource)| {
            a.metadata.name == b.metadata.name && Resiliencies::same(a, b)
        };
        let unchanged =
            wanted.len() == self.in_use.len() && wanted.iter().zip(&self.in_use).all(same);
        if !unchanged {
            self.replace(wanted);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::wanted::{Change, Wanted};

    fn resource(name: &str, retries: u32) -> Resource {
        let json = json!({"metadata": {"name": name}, "spec": {
            "policies": {"retries": {"DefaultRetryPolicy": {"maxRetries": retries}}},
        }});
        outrider_crds::decode::from_value(&json).unwrap()
    }

    fn applier(resiliency: &Resiliency) -> Applier {
        Applier::new(resiliency.clone(), Arc::default(), Vec::new())
    }

    #[tokio::test]
    async fn changes_are_put_in_order_of_names_and_may_come_twice() {
        let resiliency = Resiliency::default();
        let mut applier = applier(&resiliency);
        let retries = || resiliency.app("a", String::new).map(|p| p.has_retries());
        let mut all = Vec::new();
        let mut change = async |change| {
            if Wanted::<Resiliencies>::Changed(change).amend(&mut all) {
                assert!(applier.apply(all.clone()).await.is_continue());
            }
        };
        for (name, count) in [("z", 0), ("a", 3), ("a", 3)] {
            change(Change::Set(resource(name, count))).await;
        }
        assert_eq!(resiliency.names(), ["a", "z"]);
        assert_eq!(retries(), Some(false));
        change(Change::Deleted(resource("z", 0))).await;
        assert_eq!(retries(), Some(true));
        change(Change::Deleted(resource("a", 3))).await;
        change(Change::Deleted(resource("b", 3))).await;
        assert_eq!(retries(), None);
    }

    #[tokio::test]
    async fn a_change_is_in_use_at_once_and_a_wrong_one_has_its_reason_kept() {
        let resiliency = Resiliency::default();
        let mut applier = applier(&resiliency);
        let status = applier.status.clone();
        let retries = || resiliency.app("a", String::new).map(|p| p.has_retries());
        assert_eq!(retries(), None);
        for (count, has_retries) in [(1, true), (0, false)] {
            let _ = applier.apply(vec![resource("a", count)]).await;
            assert_eq!(retries(), Some(has_retries));
        }
        let _ = applier.apply(vec![resource("b", 0)]).await;
        assert_eq!(resiliency.names(), ["b"]);
        assert!(status.not_running().is_empty());
        let wrong =
            json!({"metadata": {"name": "b"}, "spec": {"policies": {"timeouts": {"t": "soon"}}}});
        let wrong = outrider_crds::decode::from_value(&wrong).unwrap();
        let _ = applier.apply(vec![wrong]).await;
        let (_, name, trouble) = status.not_running().remove(0);
        assert_eq!(name, "b");
        assert!(trouble.cause.to_string().contains("soon"));
        let _ = applier.apply(Vec::new()).await;
        assert_eq!(retries(), None);
    }
}
