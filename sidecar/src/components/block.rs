//! What components need to know of the building block that they are of.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use outrider_components::{Context, Error as Cause, Metadata, Missing, Registry, Table};
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use super::instance::{Description, Instance, Policies};
use super::map::Map;
use super::start::{Error, Starter};

/// A building block that has components; implemented by what the block keeps
/// of one in use.
pub trait ComponentBlock: Sized + Send + Sync + 'static {
    /// The trait object behind which its components are.
    type Trait: ?Sized + Send + Sync + 'static;
    /// What the block itself reads of a component's metadata.
    type Settings: Send;

    /// What types of its components begin with, such as `state`.
    const CATEGORY: &'static str;
    /// Whose default policies apply to its components.
    const COMPONENT_TYPE: resiliency::Block;

    fn table(registry: &Registry) -> &Table<Self::Trait>;

    /// Why a component of a type that nothing is registered for cannot start.
    fn not_registered(resource: &outrider_crds::Component, missing: Missing) -> Error {
        Error::create(resource, missing.to_string())
    }

    /// Why a component cannot start that its constructor has refused.
    fn not_connected(resource: &outrider_crds::Component, cause: &Cause) -> Error {
        Error::init(resource, cause.to_string())
    }

    /// Fails where the component cannot even be made.
    fn check(_new: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Fails where it cannot be in use beside others.
    fn check_beside(_in_use: &Map<Self>, _new: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Fails before the component is connected.
    fn settings(new: &ToConnect<'_>) -> Result<Self::Settings, String>;

    /// What the metadata API lists as its capabilities.
    fn capabilities(component: &Self::Trait) -> Vec<&'static str>;

    /// What counts operations on it, if they are counted by their names.
    fn operations(_metrics: &Metrics, _name: &str) -> Operations {
        Operations::default()
    }

    fn new(instance: Instance<Self::Trait>, settings: Self::Settings, metrics: &Metrics) -> Self;

    fn instance(&self) -> &Instance<Self::Trait>;

    fn close(component: &Self::Trait) -> BoxFuture<'_, Result<(), Cause>>;
}

/// A component that is about to be connected.
pub struct ToConnect<'a> {
    pub resource: &'a outrider_crds::Component,
    /// Its metadata with secrets and placeholders filled in.
    pub metadata: Metadata,
    pub context: Context,
}

/// A component that is started, in use or about to be.
#[async_trait]
pub trait Installed: Send + Sync {
    fn category(&self) -> &'static str;

    fn description(&self) -> &Description;

    /// How many hold it, this one included.
    fn holders(&self) -> usize;

    async fn close(&self) -> Result<(), Cause>;

    /// Takes it into use. Returns what had its name in the same block.
    fn install(self: Box<Self>) -> Option<Box<dyn Installed>>;
}

/// The components of one block that are in use, whatever their trait.
#[async_trait]
pub trait ComponentMap: Send + Sync {
    fn category(&self) -> &'static str;

    /// Connects a component, which is not in use yet.
    async fn connect(
        self: Arc<Self>,
        starter: &Starter,
        new: ToConnect<'_>,
    ) -> Result<Box<dyn Installed>, Error>;

    fn has(&self, name: &str) -> bool;

    /// Takes a component out of use.
    fn take(self: Arc<Self>, name: &str) -> Option<Box<dyn Installed>>;

    fn all(self: Arc<Self>) -> Vec<Box<dyn Installed>>;
}

struct Entry<B> {
    component: Arc<B>,
    map: Arc<Map<B>>,
}

/// A component that belongs into `map`.
pub fn entry<B: ComponentBlock>(component: Arc<B>, map: &Arc<Map<B>>) -> Box<dyn Installed> {
    let map = map.clone();
    Box::new(Entry { component, map })
}

#[async_trait]
impl<B: ComponentBlock> Installed for Entry<B> {
    fn category(&self) -> &'static str {
        B::CATEGORY
    }

    fn description(&self) -> &Description {
        &self.component.instance().description
    }

    fn holders(&self) -> usize {
        Arc::strong_count(&self.component)
    }

    async fn close(&self) -> Result<(), Cause> {
        B::close(self.component.instance().direct()).await
    }

    fn install(self: Box<Self>) -> Option<Box<dyn Installed>> {
        let Self { component, map } = *self;
        let name = component.instance().name().to_owned();
        let before = map.insert(&name, component)?;
        Some(entry(before, &map))
    }
}

#[async_trait]
impl<B: ComponentBlock> ComponentMap for Map<B> {
    fn category(&self) -> &'static str {
        B::CATEGORY
    }

    async fn connect(
        self: Arc<Self>,
        starter: &Starter,
        new: ToConnect<'_>,
    ) -> Result<Box<dyn Installed>, Error> {
        let resource = new.resource;
        let init = |cause: String| Error::init(resource, cause);
        let (name, spec) = (&resource.metadata.name, &resource.spec);
        let found = B::table(&starter.registry)
            .find(&spec.component_type, &spec.version)
            .map_err(|missing| B::not_registered(resource, missing))?;
        if let Some(warning) = found.warning {
            tracing::warn!(target: super::SCOPE, "{warning}");
        }
        B::check(&new).map_err(|cause| Error::create(resource, cause))?;
        B::check_beside(&self, &new).map_err(init)?;
        let settings = B::settings(&new).map_err(init)?;
        let connected = (found.constructor)(new.metadata, new.context).await;
        let inner = connected.map_err(|cause| B::not_connected(resource, &cause))?;
        let description = Description {
            name: name.clone(),
            component_type: spec.component_type.clone(),
            version: spec.version.clone(),
            capabilities: B::capabilities(&inner),
        };
        let policies = Policies {
            resiliency: starter.resiliency.clone(),
            block: B::COMPONENT_TYPE,
        };
        let operations = B::operations(&starter.metrics, name);
        let instance = Instance::new(description, inner, policies, operations);
        let component = Arc::new(B::new(instance, settings, &starter.metrics));
        Ok(entry(component, &self))
    }

    fn has(&self, name: &str) -> bool {
        self.load().contains_key(name)
    }

    fn take(self: Arc<Self>, name: &str) -> Option<Box<dyn Installed>> {
        let component = self.remove(name)?;
        Some(entry(component, &self))
    }

    fn all(self: Arc<Self>) -> Vec<Box<dyn Installed>> {
        let map = self.load();
        let all = map.values().cloned();
        all.map(|component| entry(component, &self)).collect()
    }
}
