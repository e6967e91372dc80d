//! Namespaces of Kubernetes: jobs of one that is deleted go with it.

use outrider_k8s::watch::{self, Change, Interest};
use outrider_k8s::{Client, objects::Collection};
use outrider_scheduler_engine::key;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::jobs::Jobs;

const SCOPE: &str = "dapr.scheduler.controller";
const NAMESPACES: Collection = Collection {
    version: "/api/v1",
    plural: "namespaces",
};
/// Between attempts to delete the jobs of a namespace.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs until `stopping` is cancelled. `synced` is called when the namespaces are
/// known.
pub async fn follow(
    client: Client,
    jobs: Jobs,
    synced: impl FnOnce() + Send,
    stopping: CancellationToken,
) {
    let mut interest = Interest::whole(NAMESPACES, None);
    interest.metadata_only = true;
    let (store, driver) = watch::new(client, interest);
    let mut changes = store.subscribe();
    let deleting = async {
        store.synced().await;
        synced();
        loop {
            match changes.recv().await {
                Ok(Change::Deleted(namespace)) => delete(&jobs, &namespace.name).await,
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(target: SCOPE, "{missed} changes of namespaces were missed");
                }
                Err(RecvError::Closed) => return,
            }
        }
    };
    tokio::select! {
        () = driver.run(stopping.clone()) => {}
        () = deleting => {}
        () = stopping.cancelled() => {}
    }
}

async fn delete(jobs: &Jobs, namespace: &str) {
    tracing::info!(target: SCOPE, "Namespace '{namespace}' is deleted, and its jobs with it");
    for prefix in key::namespace(namespace) {
        while let Err(error) = jobs.delete_prefix(&prefix).await {
            tracing::error!(target: SCOPE, "cannot delete the jobs of namespace '{namespace}', trying again: {}", error.message());
            tokio::time::sleep(RETRY).await;
        }
    }
}
