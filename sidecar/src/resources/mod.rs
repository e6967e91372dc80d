//! Resources: what there is of each kind, where it comes from, and what its
//! changes do.
//!
//! A source, which is a stream of the operator or the folders of files, says
//! what is wanted of a kind ([`kind::Watch`]); one loop ([`follow`]) hands it
//! to what brings the resources of that kind into use ([`follow::Apply`]).
//! <https://docs.dapr.io/operations/components/component-updates/>

pub mod component;
pub mod configuration;
pub mod disk;
pub mod follow;
pub mod http_endpoint;
mod kind;
pub mod operator;
pub mod pipeline;
pub mod resiliency;
pub mod subscription;
mod wanted;

use outrider_crds::{Component, HttpEndpoint, Resiliency, Subscription};

/// Of log lines about changes.
const SCOPE: &str = "dapr.runtime.hotreload";

/// All that a source has for this application.
#[derive(Debug, Default)]
pub struct Resources {
    pub components: Vec<Component>,
    pub http_endpoints: Vec<HttpEndpoint>,
    pub subscriptions: Vec<Subscription>,
    pub resiliencies: Vec<Resiliency>,
}
