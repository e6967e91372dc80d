//! What is to be known of each kind of resource that is followed.

use std::time::Duration;

use outrider_crds::Kind;

use super::Resources;
use super::operator::{Error, Event, Events, Operator};

/// A kind of resource whose changes are followed.
pub trait Watch: Send + Sync + 'static {
    type Resource: Kind + Clone + Send + Sync;
    /// What the operator's stream is made of.
    type Event: Event<Resource = Self::Resource>;

    /// What log lines say is watched.
    const UPDATES: &'static str;

    /// Whether two resources of one name ask for the same.
    fn same(a: &Self::Resource, b: &Self::Resource) -> bool;

    /// All that the operator has for this application.
    fn list(
        &self,
        operator: &Operator,
    ) -> impl Future<Output = Result<Vec<Self::Resource>, Error>> + Send;

    /// Changes, as they come.
    fn open(
        &self,
        operator: &Operator,
    ) -> impl Future<Output = Result<Events<Self::Event>, Error>> + Send;

    /// Whether a resource in the stream is for this application.
    fn is_for(&self, operator: &Operator, resource: &Self::Resource) -> bool {
        operator.sees(resource)
    }

    /// Puts resources from the operator in order, where the order counts.
    fn arrange(_resources: &mut [Self::Resource]) {}

    /// How often all are listed again beside the stream, if they are.
    fn resync(&self) -> Option<Duration> {
        None
    }
}

/// A kind that resource files have too.
pub trait Stored: Watch {
    fn take(loaded: &mut Resources) -> Vec<Self::Resource>;
}
