//! Probes of the application.
//! <https://docs.dapr.io/developing-applications/building-blocks/observability/app-health/>

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{Channel, Kind};

/// How the application is probed.
#[derive(Debug, Clone)]
pub struct Settings {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row that make an application unhealthy.
    pub threshold: u32,
}

/// Probes until `stopping`, and sends every change.
pub async fn run(
    channel: Arc<Channel>,
    settings: Settings,
    health_tx: watch::Sender<bool>,
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
                    health_tx.send_replace(true);
                }
            }
            Err(reason) => {
                failures += 1;
                if healthy && failures >= settings.threshold {
                    healthy = false;
                    tracing::warn!(target: "dapr.apphealth", "App entered un-healthy status: {reason}");
                    channel.healthy.set(false);
                    health_tx.send_replace(false);
                }
            }
        }
    }
    tracing::info!(target: "dapr.apphealth", "App health probes stopping");
}

async fn probe(channel: &Channel, path: &str, limit: Duration) -> Result<(), String> {
    let started = Instant::now();
    let late = || format!("no answer within {}", outrider_kit::duration::format(limit));
    match &channel.kind {
        Kind::Http(client) => {
            let answered = timeout(limit, client.probe(path)).await;
            let answered = answered.unwrap_or_else(|_| Err(late()));
            let shown = *answered
                .as_ref()
                .unwrap_or(&StatusCode::INTERNAL_SERVER_ERROR);
            client.metrics.probed(shown, started.elapsed());
            match answered? {
                status if status.is_success() => Ok(()),
                status => Err(format!(
                    "Health check failed with status code: {}",
                    status.as_u16()
                )),
            }
        }
        Kind::Grpc(client) => {
            let answered = timeout(limit, client.probe()).await;
            let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded(late())));
            let code = answered.as_ref().err().map_or(Code::Ok, Status::code);
            client.metrics.probed(code, started.elapsed());
            answered.map_err(|status| outrider_net::grpc::text(&status))
        }
    }
}
