//! Ending the sidecar from outside. <https://docs.dapr.io/reference/api/metadata_api/>

use http::{HeaderMap, Response};
use tokio::sync::mpsc;

use crate::blocks::descriptor::{self, Method, Route};
use crate::blocks::http::{Request, no_content};
use outrider_net::body::Body;

const FORCE: &str = "dapr-force-shutdown";

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[Route {
        name: "Shutdown",
        verbs: descriptor::POST,
        versions: &[descriptor::V1],
        path: "shutdown",
        group: "shutdown",
        answer: |apis, request, _| Box::pin(async move { http(&apis.shutdown, &request) }),
    }],
    methods: &[Method::new("Shutdown", descriptor::V1, "shutdown")],
    errors: &[],
};

/// How the process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Graceful,
    /// At once, with exit code 1.
    Forced,
}

pub struct Api {
    pub ask: mpsc::UnboundedSender<Asked>,
}

impl Api {
    /// Returns at once; what is asked for happens after the answer went out.
    pub fn shutdown(&self, headers: &HeaderMap) {
        let forced = headers
            .get(FORCE)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"true"));
        // A receiver that is gone means that the process ends already.
        let _ = self.ask.send(if forced {
            Asked::Forced
        } else {
            Asked::Graceful
        });
    }
}

pub fn http(api: &Api, request: &Request) -> Response<Body> {
    api.shutdown(&request.headers);
    no_content()
}
