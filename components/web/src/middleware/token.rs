//! Tokens of an OAuth 2.0 server. <https://www.rfc-editor.org/rfc/rfc6749>

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::HeaderValue;
use outrider_components::Secret;
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;

use super::fetch;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStyle {
    /// As the server turns out to want it.
    Auto,
    /// In the body.
    Params,
    /// As Basic credentials.
    Header,
}

/// Where tokens are asked for, and by whom.
pub struct TokenEndpoint {
    client: Client,
    url: String,
    id: String,
    secret: Secret,
    style: AuthStyle,
    /// What [`AuthStyle::Auto`] turned out to be: the header, unless the server
    /// has refused it and taken the other.
    found: AtomicU8,
}

const UNKNOWN: u8 = 0;
const HEADER: u8 = 1;
const PARAMS: u8 = 2;

/// A token.
#[derive(Debug)]
pub struct Token {
    /// Type and token, as a header carries them; marked as sensitive.
    pub header: HeaderValue,
    pub lasts: Option<Duration>,
}

impl TokenEndpoint {
    pub fn new(client: Client, url: String, id: String, secret: Secret, style: AuthStyle) -> Self {
        Self {
            client,
            url,
            id,
            secret,
            style,
            found: AtomicU8::new(UNKNOWN),
        }
    }

    /// Asks for a token. The error has no secrets in it.
    pub async fn ask(&self, parameters: &[(&str, &str)]) -> Result<Token, String> {
        let found = self.found.load(Ordering::Relaxed);
        match (self.style, found) {
            (AuthStyle::Params, _) | (AuthStyle::Auto, PARAMS) => {
                self.post(parameters, PARAMS).await
            }
            (AuthStyle::Header, _) | (AuthStyle::Auto, HEADER) => {
                self.post(parameters, HEADER).await
            }
            (AuthStyle::Auto, _) => {
                let mut style = HEADER;
                let mut token = self.post(parameters, style).await;
                if token.is_err() {
                    style = PARAMS;
                    token = self.post(parameters, style).await;
                }
                if token.is_ok() {
                    self.found.store(style, Ordering::Relaxed);
                }
                token
            }
        }
    }

    fn form(&self, parameters: &[(&str, &str)], style: u8) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters);
        let Secret(secret) = &self.secret;
        if style == PARAMS {
            form.append_pair("client_id", &self.id);
            if !secret.is_empty() {
                form.append_pair("client_secret", secret);
            }
        }
        form.finish()
    }

    async fn post(&self, parameters: &[(&str, &str)], style: u8) -> Result<Token, String> {
        let Secret(secret) = &self.secret;
        let mut request = self.client.post(&self.url);
        if style == HEADER {
            request = request.basic_auth(escaped(&self.id), Some(escaped(secret)));
        }
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(self.form(parameters, style));
        let (status, body) = fetch::send(request).await?;
        if !(200..300).contains(&status) {
            let error = serde_json::from_slice(&body).ok();
            let error = error.and_then(|body: Value| Some(body.get("error")?.as_str()?.to_owned()));
            let error = error.unwrap_or_default();
            return Err(format!("cannot fetch token: {status} {error}"));
        }
        token(&body)
    }
}

/// Id and secret are escaped before they are put together.
/// <https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1>
fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn token(body: &[u8]) -> Result<Token, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        access_token: String,
        #[serde(default)]
        token_type: String,
        #[serde(default)]
        expires_in: Value,
    }
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "cannot parse json of the token".to_owned())?;
    if answer.access_token.is_empty() {
        return Err("server response missing access_token".to_owned());
    }
    let kind = match answer.token_type.to_lowercase().as_str() {
        "" | "bearer" => "Bearer",
        "mac" => "MAC",
        "basic" => "Basic",
        _ => &answer.token_type,
    };
    let mut header = HeaderValue::try_from(format!("{kind} {}", answer.access_token))
        .map_err(|_| "the token cannot be put into a header".to_owned())?;
    header.set_sensitive(true);
    // Some servers write the number as text.
    let seconds = match &answer.expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let lasts = seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Token { header, lasts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_with_their_type_and_time() {
        for (body, header, lasts) in [
            (
                r#"{"access_token": "t", "token_type": "bearer", "expires_in": 60}"#,
                "Bearer t",
                Some(60),
            ),
            (
                r#"{"access_token": "t", "expires_in": "60"}"#,
                "Bearer t",
                Some(60),
            ),
            (
                r#"{"access_token": "t", "token_type": "DPoP", "expires_in": -1}"#,
                "DPoP t",
                None,
            ),
            (
                r#"{"access_token": "t", "token_type": "MAC", "expires_in": 1e300}"#,
                "MAC t",
                None,
            ),
        ] {
            let token = token(body.as_bytes()).expect("a token");
            assert_eq!(token.header, header);
            assert!(token.header.is_sensitive());
            assert_eq!(token.lasts, lasts.map(Duration::from_secs));
        }
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"access_token": ""}"#,
            r#"{"access_token": "a\nb"}"#,
        ] {
            assert!(token(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
