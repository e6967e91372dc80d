//! One leader among replicas, by a Lease: <https://kubernetes.io/docs/concepts/architecture/leases/>.

use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::objects::{self, Collection, Path};

/// A leader that has not renewed its lease for this long has lost it.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops leading, well before others may start.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// One candidate for one lease.
pub struct Candidate {
    pub client: Client,
    pub namespace: String,
    pub lease: String,
    /// Different for each replica: the pod's name and something random.
    pub identity: String,
}

/// The holder as last seen. Its clock is not ours, so only changes count.
struct Seen {
    record: Value,
    at: Instant,
}

impl Candidate {
    /// Sends whether this replica leads, until `stopping` is cancelled; then releases the lease.
    pub async fn run(self, leads_tx: watch::Sender<bool>, stopping: CancellationToken) {
        let mut seen = None;
        let mut renewed = Instant::now();
        loop {
            match self.attempt(&mut seen).await {
                Ok(held) => {
                    renewed = Instant::now();
                    self.set(&leads_tx, held);
                }
                Err(error) => {
                    tracing::debug!(target: "dapr.k8s.lease", "lease {}: {error}", self.lease);
                    if *leads_tx.borrow() && renewed.elapsed() >= RENEW_DEADLINE {
                        tracing::warn!(target: "dapr.k8s.lease", "lease {} could not be renewed in time, this replica stops leading: {error}", self.lease);
                        self.set(&leads_tx, false);
                    }
                }
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        if leads_tx.send_replace(false)
            && let Err(error) = self.release().await
        {
            tracing::debug!(target: "dapr.k8s.lease", "lease {} could not be released, other replicas wait until it expires: {error}", self.lease);
        }
    }

    fn set(&self, leads_tx: &watch::Sender<bool>, held: bool) {
        let changed = leads_tx.send_if_modified(|leads| std::mem::replace(leads, held) != held);
        if changed {
            let change = if held {
                "became the leader"
            } else {
                "is no longer the leader"
            };
            tracing::info!(target: "dapr.k8s.lease", "this replica {change}: lease {}", self.lease);
        }
    }

    fn path(&self) -> Result<Path, Error> {
        Ok(Collection::LEASES.object(&self.namespace, &self.lease)?)
    }

    /// Takes or renews the lease if it may. Of two replicas that write at once the API server refuses the second, by the
    /// object's version.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<bool, Error> {
        let Some(mut lease) = objects::get(&self.client, &self.path()?).await? else {
            let new = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.lease, "namespace": self.namespace},
                "spec": self.record(0, None),
            });
            let collection = Collection::LEASES.path(Some(&self.namespace))?;
            objects::create(&self.client, &collection, &new).await?;
            return Ok(true);
        };
        let spec = &lease["spec"];
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() && !expired(seen, spec) {
            return Ok(false);
        }
        let transitions = spec["leaseTransitions"].as_u64().unwrap_or_default() + u64::from(!ours);
        let since = ours.then(|| spec["acquireTime"].clone());
        lease["spec"] = self.record(transitions, since);
        match objects::replace(&self.client, &self.path()?, &lease).await {
            Ok(_) => Ok(true),
            // Another replica was quicker.
            Err(error) if error.is_conflict() && !ours => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn record(&self, transitions: u64, since: Option<Value>) -> Value {
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            .to_string();
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": since.unwrap_or_else(|| json!(now)),
            "renewTime": now,
            "leaseTransitions": transitions,
        })
    }

    async fn release(&self) -> Result<(), Error> {
        let Some(mut lease) = objects::get(&self.client, &self.path()?).await? else {
            return Ok(());
        };
        if lease["spec"]["holderIdentity"] == self.identity.as_str() {
            lease["spec"]["holderIdentity"] = json!("");
            lease["spec"]["leaseDurationSeconds"] = json!(1);
            objects::replace(&self.client, &self.path()?, &lease).await?;
        }
        Ok(())
    }
}

fn expired(seen: &mut Option<Seen>, record: &Value) -> bool {
    let duration = record["leaseDurationSeconds"]
        .as_u64()
        .map_or(DURATION, Duration::from_secs);
    match seen {
        Some(seen) if seen.record == *record => seen.at.elapsed() > duration,
        _ => {
            *seen = Some(Seen {
                record: record.clone(),
                at: Instant::now(),
            });
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_expires_when_its_record_no_longer_changes() {
        let mut seen = None;
        let record = json!({"holderIdentity": "a", "leaseDurationSeconds": 0, "renewTime": "1"});
        assert!(!expired(&mut seen, &record), "first sight");
        let renewed = json!({"holderIdentity": "a", "leaseDurationSeconds": 0, "renewTime": "2"});
        assert!(!expired(&mut seen, &renewed), "renewed");
        while seen
            .as_ref()
            .is_some_and(|seen| seen.at.elapsed().is_zero())
        {
            std::hint::spin_loop();
        }
        assert!(expired(&mut seen, &renewed));
    }
}
