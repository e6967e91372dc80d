//! Sources and what applies what they say, put together.

use std::sync::Arc;

use outrider_host::Tasks;
use tokio::sync::mpsc;

use super::component::Components;
use super::disk::Folders;
use super::disk::watch::Reader;
use super::follow::{Apply, Restart, Source, follow};
use super::http_endpoint::HttpEndpoints;
use super::kind::Watch;
use super::operator::stream::Stream;
use super::operator::{Error, Operator};
use super::resiliency::Resiliencies;
use super::subscription::Subscriptions;
use super::{Resources, SCOPE};
use super::{component, configuration, http_endpoint, resiliency, subscription};
use crate::components::status::Table;

/// What brings the resources of each kind into use.
pub struct Appliers {
    pub components: component::Applier,
    pub subscriptions: subscription::Applier,
    pub http_endpoints: http_endpoint::Applier,
    pub resiliencies: resiliency::Applier,
}

/// All that the operator has for this application.
pub async fn listed(operator: &Operator, components: &Components) -> Result<Resources, Error> {
    Ok(Resources {
        components: components.list(operator).await?,
        http_endpoints: HttpEndpoints.list(operator).await?,
        subscriptions: Subscriptions.list(operator).await?,
        // Policies are not worth staying down for.
        resiliencies: Resiliencies.list(operator).await.unwrap_or_else(|error| {
            tracing::error!(target: super::operator::SCOPE, "Error listing resiliency policies: {error}");
            Vec::new()
        }),
    })
}

/// Keeps the resources in use as their source wants them, for as long as the
/// process lives.
pub struct Pipeline {
    pub status: Arc<Table>,
    pub demands: mpsc::UnboundedSender<Restart>,
    pub tasks: Tasks,
}

impl Pipeline {
    /// Follows the streams of the operator.
    pub fn follow_operator(&self, operator: &Operator, components: Components, appliers: Appliers) {
        self.stream(operator, HttpEndpoints, appliers.http_endpoints);
        self.stream(operator, Resiliencies, appliers.resiliencies);
        self.stream(operator, Subscriptions, appliers.subscriptions);
        self.stream(operator, components, appliers.components);
    }

    /// Follows the Configuration in use, which comes from the operator.
    pub fn follow_configuration(
        &self,
        operator: &Operator,
        configuration: configuration::Named,
        applier: configuration::Applier,
    ) {
        self.stream(operator, configuration, applier);
    }

    /// Follows the folders of resource files.
    pub fn follow_files(&self, folders: Folders, components: &Components, appliers: Appliers) {
        let (reader, sources) = Reader::new(folders, components.interval);
        self.spawn(sources.http_endpoints, appliers.http_endpoints);
        self.spawn(sources.resiliencies, appliers.resiliencies);
        self.spawn(sources.components, appliers.components);
        self.spawn(sources.subscriptions, appliers.subscriptions);
        let stopping = self.tasks.stopping();
        self.tasks.spawn("resource files", async move {
            stopping.run_until_cancelled(reader.run()).await;
        });
    }

    fn stream<W: Watch>(&self, operator: &Operator, watch: W, applier: impl Apply<W> + 'static) {
        tracing::info!(target: SCOPE, "Starting to watch {}", W::UPDATES);
        self.spawn(Stream::new(watch, operator.clone()), applier);
    }

    fn spawn<W: Watch>(&self, source: impl Source<W> + 'static, applier: impl Apply<W> + 'static) {
        let (status, demands) = (self.status.clone(), self.demands.clone());
        let stopping = self.tasks.stopping();
        self.tasks.spawn(W::UPDATES, async move {
            let following = follow(source, applier, &status);
            if let Some(restart) = stopping.run_until_cancelled(following).await {
                // There is no receiver when the process is already ending.
                let _ = demands.send(restart);
            }
        });
    }
}
