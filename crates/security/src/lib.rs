//! Identities and what they permit: SPIFFE ids, trust anchors, certificates
//! that renew themselves, TLS in both directions, and access lists.
//!
//! A process makes one [`Security`] at start. Everything that listens takes an
//! [`Acceptor`] from it and everything that dials takes a [`Connector`]; both
//! read the current certificate and the current trust anchors at each
//! handshake, so nothing is rebuilt when these change.

pub mod acl;
pub mod anchors;
pub mod chain;
mod dial;
pub mod disk;
pub mod id;
pub mod identity;
mod listen;
pub mod pem;
mod request;
mod security;
mod stream;
mod tally;
mod tls;
pub mod token;
pub mod user;

pub use anchors::{Roots, TrustAnchors};
pub use dial::Connector;
pub use id::{SpiffeId, TrustDomain};
pub use identity::{Identity, Svid};
pub use listen::Acceptor;
pub use request::{Issue, IssueError, Issued, SentryClient};
pub use security::{ControlPlane, Options, Security, StartError, Upkeep};
pub use stream::{Connection, Peer};
pub use tally::{Numbers, Tally};
pub use tls::{Clients, Expected};
