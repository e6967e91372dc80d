//! Requests to the HTTP API of a language model, and their limits.

use std::time::Duration;

use outrider_components::{Error, Kind, Secret};
use outrider_kit::error;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::body;

/// How long connecting and a TLS handshake may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long an answer may take where no policy of the component ends it
/// earlier: models think for minutes.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);
/// Bytes that an answer may have.
const MOST: usize = 16 << 20;
/// Bytes of an answer that says why not, and of what errors show of it.
const MOST_OF_REFUSAL: usize = 64 << 10;
const SHOWN: usize = 1_000;

/// Where requests go, and what identifies the component there.
pub struct Api {
    client: Client,
    url: String,
    headers: HeaderMap,
}

impl Api {
    /// `credentials` is a header with what comes before the key in it.
    pub fn new(
        url: String,
        credentials: (&'static str, &'static str),
        key: &Secret,
        others: &[(&'static str, &'static str)],
    ) -> Result<Api, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in others {
            let name = HeaderName::from_static(name);
            headers.insert(name, HeaderValue::from_static(value));
        }
        let (name, prefix) = credentials;
        let mut value = HeaderValue::try_from(format!("{prefix}{}", key.0))
            .map_err(|_| Error::invalid("the key has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
        // Redirects are not followed: they would take the key and the
        // conversation elsewhere.
        let client = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|cause| {
                let text = error::chain(&cause);
                Error::invalid(format!("the HTTP client cannot be made: {text}"))
            })?;
        Ok(Api {
            client,
            url,
            headers,
        })
    }

    /// Sends a request in JSON and reads its answer.
    pub async fn ask<T: DeserializeOwned>(&self, body: Vec<u8>) -> Result<T, Error> {
        let asking = self.exchange(body);
        let (status, text) = match tokio::time::timeout(ANSWER_LIMIT, asking).await {
            Ok(answered) => answered?,
            Err(_) => {
                return Err(Error::unavailable(format!(
                    "the API has not answered within {} s",
                    ANSWER_LIMIT.as_secs()
                )));
            }
        };
        if !status.is_success() {
            return Err(refused(status, &text));
        }
        serde_json::from_slice(&text).map_err(|cause| {
            Error::internal(format!(
                "the API has sent an answer that cannot be read: {cause}"
            ))
        })
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<(reqwest::StatusCode, Vec<u8>), Error> {
        let request = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().await.map_err(|cause| unreachable(&cause))?;
        let status = answer.status();
        let most = match status.is_success() {
            true => MOST,
            false => MOST_OF_REFUSAL,
        };
        let body = body::read(answer, most).await;
        let body = body.map_err(|cause| unreachable(&cause))?;
        if !status.is_success() {
            return Ok((status, body.start()));
        }
        let text = body.whole().ok_or_else(|| {
            Error::internal(format!(
                "the API has sent an answer of more than {most} bytes"
            ))
            .retryable(false)
        })?;
        Ok((status, text))
    }
}

/// Without the URL, which the caller knows nothing of.
fn unreachable(cause: &reqwest::Error) -> Error {
    let inner: Option<&dyn std::error::Error> = std::error::Error::source(cause);
    let text = inner.map_or_else(|| cause.to_string(), error::chain);
    Error::unavailable(format!("the API cannot be reached: {text}"))
}

fn refused(status: reqwest::StatusCode, text: &[u8]) -> Error {
    let kind = match status.as_u16() {
        401 | 403 => Kind::Denied,
        404 => Kind::NotFound,
        408 | 409 | 425 | 429 | 500.. => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    let mut message = format!("API returned unexpected status code: {}", status.as_u16());
    if let Some(said) = said(text) {
        message.push_str(": ");
        message.extend(said.chars().take(SHOWN));
    }
    Error::new(kind, message)
}

/// What the answer says of itself, in the forms that APIs have for it.
fn said(text: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(text).ok()?;
    let error = json.get("error").unwrap_or(&json);
    let message = error.get("message").unwrap_or(error);
    match message {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        Value::Object(nothing) if nothing.is_empty() => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_what_the_api_says_and_no_more() {
        let status = reqwest::StatusCode::UNAUTHORIZED;
        let text = |body: &str| refused(status, body.as_bytes()).to_string();
        let begin = "API returned unexpected status code: 401";
        assert_eq!(text("<html>"), begin);
        assert_eq!(text("{}"), begin);
        assert_eq!(
            text(r#"{"error":{"message":"wrong key"}}"#),
            format!("{begin}: wrong key")
        );
        assert_eq!(text(r#"{"error":"no"}"#), format!("{begin}: no"));
        assert_eq!(text(r#"{"message":"no"}"#), format!("{begin}: no"));
        let long = format!(r#"{{"message":"{}"}}"#, "é".repeat(5_000));
        assert_eq!(text(&long).chars().count(), begin.len() + 2 + SHOWN);
        assert_eq!(refused(status, b"").kind(), Kind::Denied);
    }

    #[test]
    fn a_key_has_to_fit_into_a_header() {
        let key = Secret("a\nb".to_owned());
        let made = Api::new(String::new(), ("authorization", "Bearer "), &key, &[]);
        assert!(made.is_err());
    }
}
