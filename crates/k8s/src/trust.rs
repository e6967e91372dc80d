//! The control plane's trust anchors. The kubelet mounts them as a file, but that appears up to a minute after sentry has
//! written the ConfigMap for the first time; so the ConfigMap is read as well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use outrider_security::anchors::Source;
use outrider_security::{Roots, TrustAnchors};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::objects::{self, Collection};

const BUNDLE: &str = "dapr-trust-bundle";
const MEMBER: &str = "ca.crt";
const RETRY: Duration = Duration::from_millis(250);
/// How soon a renewed file is noticed.
const POLL: Duration = Duration::from_secs(2);

/// The file if it is there, else the text of the ConfigMap; waits for either.
pub async fn source(client: &Client, namespace: &str, file: &Path) -> Source {
    let mut logged = false;
    loop {
        if read(file).await.is_some() {
            return Source::File(file.to_owned());
        }
        match bundle(client, namespace).await {
            Ok(Some(bundle)) => {
                let text = bundle["data"][MEMBER].as_str().unwrap_or_default();
                if !text.is_empty() {
                    return Source::Text(text.to_owned());
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(target: "dapr.k8s.trust", "cannot read configmap {namespace}/{BUNDLE}: {error}")
            }
        }
        if !std::mem::replace(&mut logged, true) {
            tracing::info!(target: "dapr.k8s.trust", "Trust anchors file '{}' not found, waiting...", file.display());
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn bundle(client: &Client, namespace: &str) -> Result<Option<Value>, Error> {
    let path = Collection::CONFIG_MAPS.object(namespace, BUNDLE)?;
    objects::get(client, &path).await
}

/// Replaces the anchors when the file changes, until `stopping` is cancelled. A broken file changes nothing.
pub async fn follow(anchors: TrustAnchors, file: PathBuf, stopping: CancellationToken) {
    // The file as first seen may be older than what the anchors came from.
    let mut seen = read(&file).await;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        let now = read(&file).await;
        if now == seen {
            continue;
        }
        seen = now;
        let Some(text) = &seen else { continue };
        match Roots::parse(text) {
            Ok(roots) if roots.pem() == anchors.current().pem() => {}
            Ok(roots) => {
                tracing::info!(target: "dapr.k8s.trust", "Trust anchors file changed, reloading trust anchors");
                anchors.replace(roots);
            }
            Err(error) => {
                tracing::error!(target: "dapr.k8s.trust", "trust anchors file '{}' cannot be read as certificates, the former trust anchors stay in use: {error}", file.display());
            }
        }
    }
}

async fn read(file: &Path) -> Option<String> {
    tokio::fs::read_to_string(file)
        .await
        .ok()
        .filter(|text| !text.trim().is_empty())
}
