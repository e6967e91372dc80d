//! What the parts of a running service share.

use std::future::Future;

use anyhow::Context;
use bytes::Bytes;
use http_body::Body;
use outrider_host::server::{self, Limits};
use outrider_host::{Readiness, Target, Tasks, health, metrics};
use outrider_security::Acceptor;
use outrider_telemetry::metrics::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Failure, Settings};

/// Cloning shares it.
#[derive(Clone)]
pub struct Process {
    pub tasks: Tasks,
    pub registry: Registry,
    pub readiness: Readiness,
}

impl Process {
    pub(crate) fn new() -> Self {
        Self {
            tasks: Tasks::new(),
            registry: Registry::new(),
            readiness: Readiness::new(),
        }
    }

    /// Serves the health page, and the metrics page if it is wanted. The service
    /// is ready when all of `targets` are, and those that are added later.
    pub async fn serve_pages<const N: usize>(
        &self,
        settings: &Settings,
        targets: [&'static str; N],
    ) -> anyhow::Result<[Target; N]> {
        let targets = targets.map(|name| self.readiness.target(name));
        let (address, port) = &settings.health;
        health::serve(address, *port, self.readiness.clone(), &self.tasks)
            .await
            .context("health page")?;
        if let Some((address, port)) = &settings.metrics {
            metrics::serve(address, *port, self.registry.clone(), &self.tasks)
                .await
                .context("metrics page")?;
        }
        Ok(targets)
    }

    /// Serves `listener` until the process ends. `name` is for the log.
    pub fn serve<B, S>(
        &self,
        name: &'static str,
        listener: TcpListener,
        acceptor: Acceptor,
        limits: Limits,
        service: S,
    ) where
        S: server::Service<B>,
        B: Body<Data = Bytes, Error: Into<Failure>> + Send + Unpin + 'static,
    {
        let tasks = self.tasks.clone();
        self.tasks.spawn(name, async move {
            server::serve(name, listener, acceptor, limits, service, &tasks).await;
        });
    }

    /// Runs a task that ends by itself when `stopping` is cancelled.
    pub fn spawn<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(name, task(self.tasks.stopping()));
    }

    /// Runs a task that is dropped when the process ends.
    pub fn spawn_until_stopped(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stopping = self.tasks.stopping();
        self.tasks.spawn(name, async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }
}
