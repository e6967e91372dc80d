//! The Configuration in use, when it changes while the sidecar runs.

use outrider_crds::configuration::Spec;
use tokio::sync::mpsc;
use tonic::Code;

use super::follow::Follow;
use super::{Demand, SCOPE};
use crate::components::operator::{Change, Error, Operator};

/// Demands a restart at the first change of the Configuration in use.
pub struct Following {
    pub name: String,
    /// What is in use.
    pub current: Spec,
    pub demands: mpsc::UnboundedSender<Demand>,
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
        while wanted == self.current {
            if let Change::Set(changed) = events.next().await?
                && changed.metadata.name == self.name
            {
                wanted = changed.spec;
            }
        }
        tracing::info!(target: SCOPE, "Received Configuration UPDATED event: {} - triggering SIGHUP reload", self.name);
        // Nobody listens any more when the process is already ending.
        let _ = self.demands.send(Demand::Restart);
        Ok(())
    }
}
