//! The building blocks, one folder or file each. An operation is written once
//! in `ops.rs`; `http.rs` and `grpc.rs` decode and encode.

pub mod absent;
pub mod actors;
pub mod bindings;
pub mod configuration;
pub mod conversation;
pub mod crypto;
pub mod descriptor;
pub mod error;
pub mod health;
pub mod http;
pub mod invoke;
pub mod jobs;
pub mod json;
pub mod lock;
pub mod metadata;
pub mod middleware;
pub mod proto_json;
pub mod pubsub;
pub mod secrets;
pub mod shutdown;
pub mod state;

use std::sync::Arc;

use crate::components::live::{Live, SecretStores};
use crate::components::map::Map;

/// Every building block. The first route that fits counts.
pub const ALL: &[&descriptor::Block] = &[
    &state::BLOCK,
    &secrets::BLOCK,
    &pubsub::BLOCK,
    &bindings::BLOCK,
    &configuration::BLOCK,
    &lock::BLOCK,
    &actors::BLOCK,
    &jobs::BLOCK,
    &conversation::BLOCK,
    &crypto::BLOCK,
    &invoke::BLOCK,
    &metadata::BLOCK,
    &health::BLOCK,
    &shutdown::BLOCK,
    &absent::BLOCK,
];

/// The operations of every block.
pub struct Apis {
    pub state: state::Api,
    pub secrets: secrets::Api,
    pub pubsub: pubsub::Api,
    pub bindings: bindings::Api,
    pub configuration: configuration::Api,
    pub lock: lock::Api,
    pub actors: actors::Api,
    pub timers: actors::timers::Api,
    pub reminders: actors::reminders::Api,
    pub jobs: jobs::Api,
    pub conversation: conversation::Api,
    pub crypto: crypto::Api,
    pub invoke: invoke::Api,
    pub metadata: metadata::Api,
    pub health: health::Api,
    pub shutdown: shutdown::Api,
}

/// The components in use of every building block that has some.
#[derive(Default)]
pub struct Components {
    pub state: Arc<Map<state::Store>>,
    pub pubsub: Arc<Map<pubsub::Broker>>,
    pub bindings: Arc<Map<bindings::Binding>>,
    pub configuration: Arc<Map<configuration::Store>>,
    pub lock: Arc<Map<lock::Store>>,
    pub conversation: Arc<Map<conversation::Model>>,
    pub crypto: Arc<Map<crypto::Provider>>,
    pub secrets: Arc<SecretStores>,
    pub middleware: Arc<Map<middleware::Middleware>>,
}

impl Components {
    /// All of them, for what treats them alike.
    pub fn live(&self) -> Live {
        let blocks: Vec<Arc<dyn crate::components::block::ComponentMap>> = vec![
            self.state.clone(),
            self.pubsub.clone(),
            self.bindings.clone(),
            self.configuration.clone(),
            self.lock.clone(),
            self.conversation.clone(),
            self.crypto.clone(),
            self.secrets.clone(),
            self.middleware.clone(),
        ];
        Live::new(blocks, self.secrets.clone())
    }
}
