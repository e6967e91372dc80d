//! What is asked of identity providers: small answers, in bounded time.

use std::time::Duration;

use outrider_components::Error;
use outrider_kit::error::chain;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};

use crate::body;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const LARGEST: usize = 1 << 20;
const MOST_REDIRECTS: usize = 5;

/// A client that follows no redirect, or only those that do not lead away from
/// TLS.
pub fn client(follows: bool) -> Result<Client, Error> {
    let policy = match follows {
        false => Policy::none(),
        true => Policy::custom(|attempt| {
            let was_secure = attempt.previous().iter().all(|url| url.scheme() == "https");
            if was_secure && attempt.url().scheme() != "https" {
                return attempt.error("redirected from https to plain http, which is not followed");
            }
            match attempt.previous().len() > MOST_REDIRECTS {
                true => attempt.error("too many redirects"),
                false => attempt.follow(),
            }
        }),
    };
    Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(TIME_LIMIT)
        .redirect(policy)
        .build()
        .map_err(|error| {
            Error::invalid(format!("the HTTP client cannot be made: {}", chain(&error)))
        })
}

/// Status and body of the answer. The error names no URL, which may have
/// credentials in it.
pub async fn send(request: RequestBuilder) -> Result<(u16, Vec<u8>), String> {
    let failed = |error: reqwest::Error| chain(&error.without_url());
    let response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let body = body::read(response, LARGEST).await.map_err(failed)?;
    let body = body.whole();
    let body = body.ok_or_else(|| format!("the answer has more than {LARGEST} bytes"))?;
    Ok((status, body))
}

/// The body of an answer with status 200.
pub async fn get(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let (status, body) = send(client.get(url))
        .await
        .map_err(|cause| format!("failed to execute request: {cause}"))?;
    match status {
        200 => Ok(body),
        other => Err(format!("invalid response status code: {other}")),
    }
}
