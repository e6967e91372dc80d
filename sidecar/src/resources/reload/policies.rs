//! Resiliency resources that change while the sidecar runs. The next call has
//! the new policies; nothing is restarted.

use std::sync::Arc;

use outrider_crds::Resiliency as Resource;
use outrider_resiliency::Resiliency;

use super::SCOPE;
use super::follow::Follow;
use crate::components::status::Table;
use crate::resources::operator::{Change, Error, Operator};

/// Keeps the policies in use as the source wants them.
pub struct Policies {
    pub resiliency: Resiliency,
    pub status: Arc<Table>,
    /// What is in use.
    pub loaded: Vec<Resource>,
}

impl Policies {
    /// Uses what is wanted now, if that is anything new.
    pub fn apply(&mut self, wanted: Vec<Resource>) {
        let find = |all: &[Resource], name: &str| -> Option<Resource> {
            all.iter().find(|r| r.metadata.name == name).cloned()
        };
        let log_event = |event: &str, name: &str| {
            tracing::info!(target: SCOPE, "Received Resiliency {event} event: {name}");
        };
        for gone in &self.loaded {
            if find(&wanted, &gone.metadata.name).is_none() {
                log_event("DELETED", &gone.metadata.name);
            }
        }
        for new in &wanted {
            match find(&self.loaded, &new.metadata.name) {
                None => log_event("CREATED", &new.metadata.name),
                Some(old) if !same(&old, new) => log_event("UPDATED", &new.metadata.name),
                Some(_) => {}
            }
        }
        let unchanged = wanted.len() == self.loaded.len()
            && wanted.iter().zip(&self.loaded).all(|(a, b)| same(a, b));
        if !unchanged {
            replace(&self.resiliency, &self.status, &wanted);
            self.loaded = wanted;
        }
    }

    fn change(&mut self, change: Change<Resource>, sees: impl Fn(&Resource) -> bool) {
        let mut wanted = self.loaded.clone();
        change.amend(&mut wanted, sees);
        in_order(&mut wanted);
        self.apply(wanted);
    }
}

impl Follow for Policies {
    const WATCHED: &'static str = "Resiliency updates";

    async fn stream(&mut self, operator: &Operator, alive: &mut bool) -> Result<(), Error> {
        let mut events = operator.resiliency_events().await?;
        self.apply(operator.resiliencies().await?);
        *alive = true;
        loop {
            let change = events.next().await?;
            self.change(change, |resource| operator.sees(resource));
        }
    }
}

/// Uses these policies, and keeps which resources have errors.
pub fn replace(resiliency: &Resiliency, status: &Table, wanted: &[Resource]) {
    let left_out = resiliency.replace(wanted);
    status.retain::<Resource>(|name| wanted.iter().any(|r| r.metadata.name == name));
    for resource in wanted {
        let name = &resource.metadata.name;
        match left_out.iter().find(|left| left.name == *name) {
            Some(left) => status.failed::<Resource>(name, &left.cause),
            None => status.running::<Resource>(name),
        }
    }
}

/// Later resources go before earlier ones, so the order must not depend on
/// when they came.
pub fn in_order(resources: &mut [Resource]) {
    resources.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
}

fn same(a: &Resource, b: &Resource) -> bool {
    a.metadata.name == b.metadata.name
        && a.metadata.namespace == b.metadata.namespace
        && a.spec == b.spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(name: &str, retries: u32) -> Resource {
        let json = json!({"metadata": {"name": name}, "spec": {
            "policies": {"retries": {"DefaultRetryPolicy": {"maxRetries": retries}}},
        }});
        outrider_crds::decode::from_value(&json).unwrap()
    }

    #[test]
    fn events_are_put_in_order_of_names_and_may_come_twice() {
        let resiliency = Resiliency::default();
        let mut policies = Policies {
            resiliency: resiliency.clone(),
            status: Arc::default(),
            loaded: Vec::new(),
        };
        let retries = || resiliency.app("a", String::new).map(|p| p.has_retries());
        let mut event = |change| policies.change(change, |r| r.metadata.namespace != "hidden");
        for (name, count) in [("z", 0), ("a", 3), ("a", 3)] {
            event(Change::Set(resource(name, count)));
        }
        assert_eq!(resiliency.names(), ["a", "z"]);
        assert_eq!(retries(), Some(false));
        // Out of scope counts as deleted.
        let mut hidden = resource("z", 0);
        hidden.metadata.namespace = "hidden".to_owned();
        event(Change::Set(hidden));
        assert_eq!(retries(), Some(true));
        event(Change::Deleted(resource("a", 3)));
        event(Change::Deleted(resource("b", 3)));
        assert_eq!(retries(), None);
    }

    #[test]
    fn a_change_is_in_use_at_once() {
        let resiliency = Resiliency::default();
        let mut policies = Policies {
            resiliency: resiliency.clone(),
            status: Arc::default(),
            loaded: Vec::new(),
        };
        let retries = || resiliency.app("a", String::new).map(|p| p.has_retries());
        assert_eq!(retries(), None);
        policies.apply(vec![resource("a", 1)]);
        assert_eq!(retries(), Some(true));
        policies.apply(vec![resource("a", 0)]);
        assert_eq!(retries(), Some(false));
        policies.apply(vec![resource("b", 0)]);
        assert_eq!(resiliency.names(), ["b"]);
        policies.apply(Vec::new());
        assert_eq!(retries(), None);
    }
}
