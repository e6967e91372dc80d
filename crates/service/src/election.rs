//! A leader among the replicas of a service.

use outrider_k8s::Client;
use outrider_k8s::lease::Candidate;
use tokio::sync::watch;

use crate::Process;

/// The Lease that the leader holds.
pub struct Election {
    pub namespace: String,
    pub lease: &'static str,
    /// Host name of this replica.
    pub host: String,
    /// Whether there is an election at all; without one each replica leads.
    pub enabled: bool,
}

impl Election {
    /// The receiver has whether this replica leads.
    pub fn start(self, client: &Client, process: &Process) -> watch::Receiver<bool> {
        let (leads_tx, leads) = watch::channel(!self.enabled);
        let client = client.clone();
        process.spawn("election", |stopping| async move {
            if !self.enabled {
                // The value stays; receivers want a sender that lives.
                stopping.cancelled().await;
                return drop(leads_tx);
            }
            let candidate = Candidate {
                client,
                namespace: self.namespace,
                lease: self.lease.to_owned(),
                identity: format!("{}_{}", self.host, uuid::Uuid::new_v4()),
            };
            candidate.run(leads_tx, stopping).await;
        });
        leads
    }
}
