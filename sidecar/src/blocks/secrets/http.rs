//! Secrets over HTTP. <https://docs.dapr.io/reference/api/secrets_api/>

use std::collections::BTreeMap;

use http::{Response, StatusCode};

use super::Api;
use crate::blocks::http::{self as api, Request, no_content};
use crate::blocks::json;
use outrider_net::body::Body;

pub async fn get(api: &Api, request: Request, store: &str, secret: &str) -> Response<Body> {
    match api.get(store, secret, request.metadata()).await {
        Err(error) => error.into(),
        Ok(pairs) if pairs.is_empty() => no_content(),
        Ok(pairs) => api::json(
            StatusCode::OK,
            json::to_line(&pairs.into_iter().collect::<BTreeMap<_, _>>()),
        ),
    }
}

pub async fn bulk_get(api: &Api, request: Request, store: &str) -> Response<Body> {
    match api.bulk_get(store, &request.metadata()).await {
        Err(error) => error.into(),
        Ok(all) => {
            let sorted: BTreeMap<_, BTreeMap<_, _>> = all
                .into_iter()
                .map(|(name, pairs)| (name, pairs.into_iter().collect()))
                .collect();
            api::json(StatusCode::OK, json::to_line(&sorted))
        }
    }
}
