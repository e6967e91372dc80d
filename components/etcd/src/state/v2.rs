//! `state.etcd`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-etcd/>.
//!
//! Version 2: values are kept with the time when they expire.

use std::sync::Arc;

use outrider_components::state::Store;
use outrider_components::{Context, Error, Metadata};

pub use super::FIELDS;
use crate::value::Schema;

/// Connects.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    super::connect(&metadata, Schema::Dated).await
}
