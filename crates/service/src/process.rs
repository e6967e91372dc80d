//! What the parts of a running service share.

use std::future::Future;

use anyhow::Context;
use bytes::Bytes;
use http_body::Body;
use outrider_host::health::JsonPage;
use outrider_host::server::{self, Limits};
use outrider_host::{Readiness, Target, Tasks, health, metrics};
use outrider_security::Acceptor;
use outrider_telemetry::log;
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

    /// Serves the health page with `more` beside it, and the metrics page if it is
    /// wanted. The service is ready when all of `targets` are, and those that are
    /// added later.
    pub async fn serve_pages<const N: usize>(
        &self,
        settings: &Settings,
        targets: [&'static str; N],
        more: Option<JsonPage>,
    ) -> anyhow::Result<[Target; N]> {
        let targets = targets.map(|name| self.readiness.target(name));
        let (address, port) = &settings.health;
        health::serve(address, *port, self.readiness.clone(), more, &self.tasks)
            .await
            .with_context(|| format!("health page on {address}:{port}"))?;
        if let Some((address, port)) = &settings.metrics {
            metrics::serve(address, *port, self.registry.clone(), &self.tasks)
                .await
                .with_context(|| format!("metrics page on {address}:{port}"))?;
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
        self.spawn_essential(name, async move {
            server::serve(name, listener, acceptor, limits, service, &tasks).await;
        });
    }

    /// Runs a task without which the process is of no use: should it panic, or
    /// end too early, the process ends with it and is started again.
    pub fn spawn_essential(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stopping = self.tasks.stopping();
        self.tasks.spawn(name, async move {
            let _essential = Essential { name, stopping };
            task.await;
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

/// Ends the process when it is dropped before that was to end.
struct Essential {
    name: &'static str,
    stopping: CancellationToken,
}

impl Drop for Essential {
    fn drop(&mut self) {
        if !self.stopping.is_cancelled() {
            let line = format!(
                "the task {} has ended by itself: the process ends",
                self.name
            );
            log::fatal("dapr.host", &line);
            log::flush();
            std::process::exit(1);
        }
    }
}
