//! A real Kubernetes of one node on this Linux machine, for tests and the demo: no Docker, no registry.
//!
//! Its programs are built from source once. Everything it runs is in namespaces of its own, so that it never
//! meets another cluster or container engine of the machine, and ends whole with the process that booted it.

mod app;
mod boot;
mod cluster;
mod credentials;
mod daemons;
mod debian;
mod disks;
mod flags;
mod groups;
mod image;
mod layout;
mod machine;
mod namespace;
mod network;
pub mod product;
mod programs;
mod run;
mod sandbox;
mod wait;

pub use app::main;
pub use cluster::Cluster;
pub use debian::install as install_debian;
pub use flags::{Options, may_boot};
pub use image::{Archive, Image};
pub use layout::folder;
pub use namespace::{Namespace, PodSecurity};
pub use wait::wait;
