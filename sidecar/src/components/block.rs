//! What components need to know of the building block that they are of.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::{Context, Error as Cause, Metadata, Registry, Table};
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use super::instance::{Call, Component, Instance, Policies};
use super::map::Map;
use super::start::{Error, Starter};

/// A building block that has components; implemented by what the block keeps
/// of one in use.
pub trait Block: Sized + Send + Sync + 'static {
    /// The trait object behind which its components are.
    type Trait: ?Sized + Send + Sync + 'static;
    /// What the block itself reads of a component's metadata.
    type Settings: Send;

    /// What types of its components begin with, such as `state`.
    const CATEGORY: &'static str;
    /// Whose default policies apply to its components.
    const POLICIES: resiliency::Block;

    fn table(registry: &Registry) -> &Table<Self::Trait>;

    /// Fails before the component is connected.
    fn settings(new: &New<'_>) -> Result<Self::Settings, String>;

    /// What the metadata API lists as its capabilities.
    fn capabilities(component: &Self::Trait) -> Vec<&'static str>;

    /// What counts operations on it, if they are counted by their names.
    fn operations(_metrics: &Metrics, _name: &str) -> Operations {
        Operations::default()
    }

    fn new(instance: Instance<Self::Trait>, settings: Self::Settings, metrics: &Metrics) -> Self;

    fn instance(&self) -> &Instance<Self::Trait>;

    fn close(component: &Self::Trait) -> Call<'_, Result<(), Cause>>;
}

/// A component that is about to be connected.
pub struct New<'a> {
    pub resource: &'a outrider_crds::Component,
    /// Its metadata with secrets and placeholders filled in.
    pub metadata: Metadata,
    pub context: Context,
}

/// A component that is started, in use or about to be.
#[async_trait]
pub trait Running: Send + Sync {
    fn category(&self) -> &'static str;

    fn component(&self) -> &Component;

    /// How many hold it, this one included.
    fn holders(&self) -> usize;

    async fn close(&self) -> Result<(), Cause>;

    /// Takes it into use. Returns what had its name in the same block.
    fn install(self: Box<Self>) -> Option<Box<dyn Running>>;
}

/// The components of one block that are in use, whatever their trait.
#[async_trait]
pub trait InUse: Send + Sync {
    fn category(&self) -> &'static str;

    /// Connects a component, which is not in use yet.
    async fn connect(
        self: Arc<Self>,
        starter: &Starter,
        new: New<'_>,
    ) -> Result<Box<dyn Running>, Error>;

    fn has(&self, name: &str) -> bool;

    /// Takes a component out of use.
    fn take(self: Arc<Self>, name: &str) -> Option<Box<dyn Running>>;

    fn all(self: Arc<Self>) -> Vec<Box<dyn Running>>;
}

struct Started<B> {
    used: Arc<B>,
    map: Arc<Map<B>>,
}

/// A component that belongs into `map`.
pub fn running<B: Block>(used: Arc<B>, map: &Arc<Map<B>>) -> Box<dyn Running> {
    let map = map.clone();
    Box::new(Started { used, map })
}

#[async_trait]
impl<B: Block> Running for Started<B> {
    fn category(&self) -> &'static str {
        B::CATEGORY
    }

    fn component(&self) -> &Component {
        &self.used.instance().component
    }

    fn holders(&self) -> usize {
        Arc::strong_count(&self.used)
    }

    async fn close(&self) -> Result<(), Cause> {
        B::close(self.used.instance().direct()).await
    }

    fn install(self: Box<Self>) -> Option<Box<dyn Running>> {
        let Self { used, map } = *self;
        let name = used.instance().name().to_owned();
        let before = map.insert(&name, used)?;
        Some(running(before, &map))
    }
}

#[async_trait]
impl<B: Block> InUse for Map<B> {
    fn category(&self) -> &'static str {
        B::CATEGORY
    }

    async fn connect(
        self: Arc<Self>,
        starter: &Starter,
        new: New<'_>,
    ) -> Result<Box<dyn Running>, Error> {
        let resource = new.resource;
        let init = |cause: String| Error::init(resource, cause);
        let (name, spec) = (&resource.metadata.name, &resource.spec);
        let found = B::table(&starter.registry)
            .find(&spec.component_type, &spec.version)
            .map_err(|cause| Error::create(resource, cause.to_string()))?;
        if let Some(warning) = found.warning {
            tracing::warn!(target: super::start::SCOPE, "{warning}");
        }
        let settings = B::settings(&new).map_err(init)?;
        let connected = (found.constructor)(new.metadata, new.context).await;
        let inner = connected.map_err(|cause| init(cause.to_string()))?;
        let component = Component {
            name: name.clone(),
            kind: spec.component_type.clone(),
            version: spec.version.clone(),
            capabilities: B::capabilities(&inner),
        };
        let policies = Policies {
            resiliency: starter.resiliency.clone(),
            block: B::POLICIES,
        };
        let operations = B::operations(&starter.metrics, name);
        let instance = Instance::new(component, inner, policies, operations);
        let used = Arc::new(B::new(instance, settings, &starter.metrics));
        Ok(running(used, &self))
    }

    fn has(&self, name: &str) -> bool {
        self.load().contains_key(name)
    }

    fn take(self: Arc<Self>, name: &str) -> Option<Box<dyn Running>> {
        let used = self.remove(name)?;
        Some(running(used, &self))
    }

    fn all(self: Arc<Self>) -> Vec<Box<dyn Running>> {
        let map = self.load();
        let all = map.values().cloned();
        all.map(|used| running(used, &self)).collect()
    }
}
