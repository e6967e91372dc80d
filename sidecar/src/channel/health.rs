//! Probes of the application.
//! <https://docs.dapr.io/developing-applications/building-blocks/observability/app-health/>

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Channel, Kind};
use crate::flags::Health;

/// Probes until `stopping`, and tells every change.
pub async fn run(
    channel: Arc<Channel>,
    settings: Health,
    told: watch::Sender<bool>,
    stopping: CancellationToken,
) {
    tracing::info!(target: "dapr.apphealth", "App health probes starting");
    let mut failures = 0;
    let mut healthy = false;
    channel.healthy.set(false);
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            _ = ticks.tick() => {}
        }
        match probe(&channel, &settings.path, settings.timeout).await {
            Ok(()) => {
                failures = 0;
                if !healthy {
                    healthy = true;
                    tracing::info!(target: "dapr.apphealth", "App entered healthy status");
                    channel.healthy.set(true);
                    told.send_replace(true);
                }
            }
            Err(reason) => {
                failures += 1;
                if healthy && failures >= settings.threshold {
                    healthy = false;
                    tracing::warn!(target: "dapr.apphealth", "App entered un-healthy status: {reason}");
                    channel.healthy.set(false);
                    told.send_replace(false);
                }
            }
        }
    }
    tracing::info!(target: "dapr.apphealth", "App health probes stopping");
}

async fn probe(channel: &Channel, path: &str, limit: Duration) -> Result<(), String> {
    let probing = async {
        match &channel.kind {
            Kind::Http(client) => match client.probe(path).await? {
                status if status.is_success() => Ok(()),
                status => Err(format!(
                    "Health check failed with status code: {}",
                    status.as_u16()
                )),
            },
            Kind::Grpc(client) => client
                .unary::<(), ()>(
                    "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck",
                    &(),
                    http::HeaderMap::new(),
                )
                .await
                .map(|_| ())
                .map_err(|status| crate::grpc::text(&status)),
        }
    };
    tokio::time::timeout(limit, probing)
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "no answer within {}",
                outrider_kit::duration::format(limit)
            ))
        })
}
