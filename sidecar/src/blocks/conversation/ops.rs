//! Asking a language model.

use std::sync::Arc;
use std::time::Instant;

use outrider_components::conversation::{Request, Response};

use super::{Api, Model, error};
use crate::blocks::error::Result;

impl Api {
    pub(super) fn model(&self, name: &str) -> Result<Arc<Model>> {
        self.models.get(name).ok_or_else(|| error::not_found(name))
    }
}

impl Model {
    /// Asks under the policies of the component, and counts.
    pub(super) async fn converse(&self, request: &Request) -> Result<Response> {
        let started = Instant::now();
        let asking = self.instance.call(|model| model.converse(request));
        let answered = asking.await;
        self.metrics.asked(answered.is_ok(), started.elapsed());
        answered.map_err(|cause| error::invoke(self.instance.name(), &cause))
    }
}
