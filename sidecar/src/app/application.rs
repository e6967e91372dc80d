//! What the runtime does about the application, in step with its health.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use outrider_host::Tasks;
use tokio::sync::watch;

use super::SCOPE;
use super::actors::AppActors;
use super::jobs::Jobs;
use crate::blocks::bindings::read::Readers;
use crate::blocks::pubsub::subscribe::Subscriber;
use crate::flags::Protocol;
use outrider_call::channel::connect::Connector;
use outrider_call::channel::{self, Channel};

/// Watches the application from the start on.
pub struct WatchApp {
    pub channel: Arc<Channel>,
    pub connector: Connector,
    pub protocol: Protocol,
    /// None without probes.
    pub probes: Option<channel::health::Settings>,
    pub health_tx: watch::Sender<bool>,
    pub app_id: String,
    pub asks_config: bool,
    pub subscriber: Subscriber,
    pub readers: Readers,
    /// The jobs that it takes.
    pub jobs: Jobs,
    pub actors: AppActors,
    pub tasks: Tasks,
}

impl WatchApp {
    /// Waits for the application to listen and to be healthy, asks it what it
    /// wants, and from then on follows its health.
    pub async fn run(self, initialized: impl FnOnce()) {
        let stopping = self.tasks.stopping();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.follow(initialized) => {}
        }
    }

    async fn follow(&self, initialized: impl FnOnce()) {
        let port = self.connector.port;
        let protocol = self.protocol.name();
        tracing::info!(target: SCOPE, "application protocol: {protocol}. waiting on port {port}.  This will block until the app is listening on that port.");
        self.connector.wait().await;
        tracing::info!(target: SCOPE, "application discovered on port {port}");
        let mut healthy_rx = self.health_tx.subscribe();
        let mut initialized = Some(initialized);
        match &self.probes {
            Some(probes) => {
                let (channel, probes) = (self.channel.clone(), probes.clone());
                let (health_tx, stopping) = (self.health_tx.clone(), self.tasks.stopping());
                let probing = channel::health::run(channel, probes, health_tx, stopping);
                self.tasks.spawn("app health", probing);
                initialized
                    .take()
                    .into_iter()
                    .for_each(|initialized| initialized());
            }
            None => {
                self.health_tx.send_replace(true);
            }
        }
        if healthy_rx.wait_for(|healthy| *healthy).await.is_err() {
            return;
        }
        if !self.asks_config {
            tracing::warn!(target: SCOPE, "Skipping programmatic dapr configuration loading (see 'disable-init-endpoints' flag/annotation)");
        }
        loop {
            if *healthy_rx.borrow_and_update() {
                let config = match self.asks_config {
                    true => load_app_config(&self.channel, &self.app_id).await,
                    false => None,
                };
                self.actors.host(config.as_ref());
                tokio::join!(self.subscriber.start(), self.readers.start());
                self.jobs.take(true);
            } else {
                self.actors.withdraw();
                self.jobs.take(false);
                self.subscriber.stop();
                self.readers.stop();
            }
            // Without probes the sidecar is ready when the subscriptions are, and
            // the application has been asked about input bindings.
            initialized
                .take()
                .into_iter()
                .for_each(|initialized| initialized());
            if healthy_rx.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What the application says about itself; nothing if it has no words for it.
async fn load_app_config(channel: &Channel, app_id: &str) -> Option<Bytes> {
    let channel::Kind::Http(client) = &channel.kind else {
        return None;
    };
    let permit = channel.permit().await;
    match client.ask(permit, "dapr/config", app_id).await {
        Ok((StatusCode::OK, body)) => {
            tracing::info!(target: SCOPE, "Application configuration loaded");
            return Some(body);
        }
        Ok((status, _)) => {
            tracing::debug!(target: SCOPE, "the application has no configuration: {status}");
        }
        Err(error) => {
            tracing::warn!(target: SCOPE, "failed to load application configuration: {error}");
        }
    }
    None
}
