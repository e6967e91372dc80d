//! The Configuration in use. A change that the sidecar can start with takes a
//! fresh start; another one leaves the one before in use.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use outrider_crds::Configuration;
use outrider_crds::configuration::Spec;
use outrider_proto::operator::v1 as wire;
use tonic::Code;

use super::SCOPE;
use super::follow::{Apply, Restart};
use super::kind::Watch;
use super::operator::{Error, Events, Operator};
use crate::blocks::secrets::scope;
use crate::components::status::Table;
use crate::config;
use crate::edge::allow::Allowed;

/// The Configuration of this name.
pub struct Named(pub String);

impl Watch for Named {
    type Resource = Configuration;
    type Event = wire::ConfigurationUpdateEvent;

    const UPDATES: &'static str = "Configuration updates for SIGHUP reload";

    fn same(a: &Configuration, b: &Configuration) -> bool {
        a.spec == b.spec
    }

    /// One that was deleted, or that cannot be read, leaves the one before in
    /// use.
    async fn list(&self, operator: &Operator) -> Result<Vec<Configuration>, Error> {
        match operator.configuration(&self.0).await {
            Ok(configuration) => Ok(vec![configuration]),
            Err(Error::Call(status)) if status.code() == Code::Unavailable => Err(status.into()),
            Err(error) => {
                tracing::warn!(target: SCOPE, "the Configuration {} stays in use as it was: {error}", self.0);
                Ok(Vec::new())
            }
        }
    }

    async fn open(&self, operator: &Operator) -> Result<Events<Self::Event>, Error> {
        let namespace = operator.namespace();
        let request = wire::ConfigurationUpdateRequest { namespace };
        let mut client = operator.client();
        Events::open(async move { client.configuration_update(request).await }).await
    }

    fn is_for(&self, _: &Operator, resource: &Configuration) -> bool {
        resource.metadata.name == self.0
    }
}

/// Demands a restart at the first change that the sidecar can start with.
pub struct Applier {
    name: String,
    in_use: Spec,
    status: Arc<Table>,
}

impl Applier {
    pub fn new(name: String, in_use: Spec, status: Arc<Table>) -> Self {
        status.running::<Configuration>(&name);
        Self {
            name,
            in_use,
            status,
        }
    }
}

impl Apply<Named> for Applier {
    async fn apply(&mut self, wanted: Vec<Configuration>) -> ControlFlow<Restart> {
        let Some(wanted) = wanted.last() else {
            return ControlFlow::Continue(());
        };
        let name = &self.name;
        if wanted.spec == self.in_use {
            self.status.running::<Configuration>(name);
            return ControlFlow::Continue(());
        }
        match check(&wanted.spec) {
            Ok(()) => {
                tracing::info!(target: SCOPE, "Received Configuration UPDATED event: {name} - triggering SIGHUP reload");
                ControlFlow::Break(Restart)
            }
            Err(why) => {
                tracing::error!(target: SCOPE, "the Configuration {name} stays in use as it was: {why}");
                self.status.failed::<Configuration>(name, &why);
                ControlFlow::Continue(())
            }
        }
    }
}

/// All that would end a start. One Configuration may be that of many sidecars.
fn check(spec: &Spec) -> Result<(), String> {
    Allowed::new(spec.api.as_ref()).map_err(|e| e.to_string())?;
    config::access(spec).map_err(|e| e.to_string())?;
    scope::parse(spec.secrets.as_ref()).map_err(|e| e.to_string())?;
    let no_variables = HashMap::new();
    outrider_trace::Settings::read(spec.tracing.as_ref(), "", &no_variables)
        .map_err(|e| e.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn configuration(spec: Value) -> Configuration {
        let json = json!({"metadata": {"name": "app"}, "spec": spec});
        outrider_crds::decode::from_value(&json).unwrap()
    }

    #[tokio::test]
    async fn configuration_that_would_end_a_start_demands_no_restart() {
        let in_use = configuration(json!({})).spec;
        let status = Arc::<Table>::default();
        let mut applier = Applier::new("app".to_owned(), in_use, status.clone());
        let mut apply = async |spec| applier.apply(vec![configuration(spec)]).await;
        let denied =
            |protocol: &str| json!({"api": {"denied": [{"name": "state", "protocol": protocol}]}});
        assert!(apply(json!({})).await.is_continue());
        assert!(apply(denied("http")).await.is_break());
        let policy = json!({"appId": "a", "namespace": "n", "trustDomain": ""});
        let scope = json!({"storeName": "s", "defaultAccess": "sometimes"});
        for wrong in [
            denied("udp"),
            json!({"accessControl": {"policies": [policy]}}),
            json!({"secrets": {"scopes": [scope]}}),
            json!({"tracing": {"otel": {"endpointAddress": "collector:1", "protocol": "udp"}}}),
        ] {
            assert!(apply(wrong).await.is_continue());
            assert_eq!(status.not_running().len(), 1);
        }
        assert!(apply(json!({})).await.is_continue());
        assert!(status.not_running().is_empty());
        assert!(applier.apply(Vec::new()).await.is_continue());
    }
}
