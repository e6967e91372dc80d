//! Whether the sidecar is ready. <https://docs.dapr.io/reference/api/health_api/>

use http::{Response, StatusCode};
use outrider_host::{Readiness, Target};
use tonic::Code;

use super::error::Error;
use crate::blocks::descriptor::{self, Route};
use crate::blocks::http::{Request, no_content};
use outrider_net::body::Body;

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "Healthz",
            verbs: descriptor::GET,
            versions: &[descriptor::V1],
            path: "healthz",
            group: "healthz",
            answer: |apis, request, _| Box::pin(async move { http(&apis.health, &request) }),
        },
        Route {
            name: "HealthzOutbound",
            verbs: descriptor::GET,
            versions: &[descriptor::V1],
            path: "healthz/outbound",
            group: "healthz",
            answer: |apis, _, _| Box::pin(async { http_outbound(&apis.health) }),
        },
    ],
    methods: &[],
    errors: &[
        ("ERR_HEALTH_", "health"),
        ("ERR_OUTBOUND_HEALTH_NOT_READY", "health"),
    ],
};

pub struct Api {
    pub app_id: String,
    pub readiness: Readiness,
    /// Components are there and the servers are up, whatever the application does.
    pub outbound: Target,
}

pub fn http(api: &Api, request: &Request) -> Response<Body> {
    let pending = api.readiness.pending();
    if !pending.is_empty() {
        return refuse(
            "ERR_HEALTH_NOT_READY",
            format!("dapr is not ready: [{}]", pending.join(" ")),
        );
    }
    match request.parameter("appid") {
        Some(id) if id != api.app_id => refuse(
            "ERR_HEALTH_APPID_NOT_MATCH",
            "dapr app-id does not match".to_owned(),
        ),
        _ => no_content(),
    }
}

pub fn http_outbound(api: &Api) -> Response<Body> {
    if api.outbound.is_ready() {
        no_content()
    } else {
        refuse(
            "ERR_OUTBOUND_HEALTH_NOT_READY",
            "dapr outbound is not ready".to_owned(),
        )
    }
}

fn refuse(code: &'static str, message: String) -> Response<Body> {
    Error::legacy(
        code,
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        message,
    )
    .into()
}
