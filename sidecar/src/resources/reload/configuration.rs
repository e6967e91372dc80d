//! The Configuration in use, when it changes while the sidecar runs.

use outrider_crds::configuration::Spec;
use tokio::sync::mpsc;
use tonic::Code;

use super::follow::Follow;
use super::{Restart, SCOPE};
use crate::blocks::secrets::scope;
use crate::config;
use crate::edge::allow::Allowed;
use crate::resources::operator::{Change, Error, Operator};

/// Demands a restart at the first change of the Configuration in use that the
/// sidecar can start with.
pub struct Following {
    pub name: String,
    /// What is in use.
    pub current: Spec,
    pub demands: mpsc::UnboundedSender<Restart>,
}

impl Follow for Following {
    const WATCHED: &'static str = "Configuration updates for SIGHUP reload";

    async fn stream(&mut self, operator: &Operator, alive: &mut bool) -> Result<(), Error> {
        let mut events = operator.configuration_events().await?;
        let mut wanted = match operator.configuration(&self.name).await {
            Ok(spec) => spec,
            Err(Error::Call(status)) if status.code() == Code::Unavailable => {
                return Err(status.into());
            }
            // One that was deleted, or that cannot be read, leaves the one before in use.
            Err(error) => {
                tracing::warn!(target: SCOPE, "the Configuration {} stays in use as it was: {error}", self.name);
                self.current.clone()
            }
        };
        *alive = true;
        while !self.demands_restart(&wanted) {
            wanted = loop {
                if let Change::Set(changed) = events.next().await?
                    && changed.metadata.name == self.name
                {
                    break changed.spec;
                }
            };
        }
        tracing::info!(target: SCOPE, "Received Configuration UPDATED event: {} - triggering SIGHUP reload", self.name);
        // There is no receiver when the process is already ending.
        let _ = self.demands.send(Restart);
        Ok(())
    }
}

impl Following {
    fn demands_restart(&self, wanted: &Spec) -> bool {
        if *wanted == self.current {
            return false;
        }
        match check(wanted) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(target: SCOPE, "the Configuration {} stays in use as it was: {error}", self.name);
                false
            }
        }
    }
}

/// All that would end a start. One Configuration may be that of many sidecars.
fn check(spec: &Spec) -> Result<(), Box<dyn std::error::Error>> {
    Allowed::new(spec.api.as_ref())?;
    config::access(spec)?;
    scope::parse(spec.secrets.as_ref())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configuration_that_would_end_a_start_demands_no_restart() {
        let spec = |json: serde_json::Value| -> Spec {
            let json = json!({"metadata": {"name": "app"}, "spec": json});
            let configuration: outrider_crds::Configuration =
                outrider_crds::decode::from_value(&json).unwrap();
            configuration.spec
        };
        let (demands, _) = mpsc::unbounded_channel();
        let following = Following {
            name: "app".to_owned(),
            current: spec(json!({})),
            demands,
        };
        let demands = |json| following.demands_restart(&spec(json));
        assert!(!demands(json!({})));
        assert!(demands(
            json!({"api": {"denied": [{"name": "state", "protocol": "http"}]}})
        ));
        assert!(!demands(
            json!({"api": {"denied": [{"name": "state", "protocol": "udp"}]}})
        ));
        let policy = json!({"appId": "a", "namespace": "n", "trustDomain": ""});
        assert!(!demands(json!({"accessControl": {"policies": [policy]}})));
        let scope = json!({"storeName": "s", "defaultAccess": "sometimes"});
        assert!(!demands(json!({"secrets": {"scopes": [scope]}})));
    }
}
