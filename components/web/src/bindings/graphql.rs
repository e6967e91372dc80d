//! `bindings.graphql`: <https://docs.dapr.io/reference/components-reference/supported-bindings/graghql/>.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_components::bindings::{Answer, Binding, Failure, Output, Request};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use reqwest::Client;
use serde_json::{Map, Value, json};

use crate::body;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// For the whole of one request.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const MAX_ANSWER: usize = 100 << 20;
const OPERATIONS: [&str; 2] = ["query", "mutation"];

outrider_components::fields! {
    struct Fields {
        /// URL of the server. Properties that start with `header:` are headers
        /// of every request.
        "endpoint" => endpoint: String, missing "GraphQL Error: Missing GraphQL URL";
    }
}

struct Graphql {
    client: Client,
    endpoint: String,
    headers: HeaderMap,
}

/// Connects with the first request.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let fields = Fields::read(&metadata)?;
    let client = Client::builder()
        // Headers with secrets are for this server alone.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT)
        .build()
        .map_err(|error| Error::invalid(outrider_kit::error::chain(&error)))?;
    let graphql = Graphql {
        client,
        endpoint: fields.endpoint,
        headers: headers(metadata.iter())?,
    };
    Ok(Binding::of_output(&metadata, graphql))
}

/// The headers among some pairs.
fn headers<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs {
        let Some(name) = key.strip_prefix("header:") else {
            continue;
        };
        let wrong = |_| Error::invalid(format!("GraphQL Error: invalid header {name}"));
        let value = HeaderValue::from_str(value).map_err(|_| wrong(()))?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(()))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The document that the metadata `command` has, which has to be one.
fn document<'a>(metadata: &'a Pairs, command: &str) -> Result<&'a str, Error> {
    let text = metadata.get(command).map_or("", |text| text.trim());
    if text.is_empty() {
        let quoted = outrider_kit::quote::go(command);
        return Err(Error::invalid(format!(
            "GraphQL Error: required {quoted} not set"
        )));
    }
    let is_one = text
        .strip_prefix(command)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
    if !is_one {
        return Err(Error::invalid(format!(
            "GraphQL Error: command is not a {command}"
        )));
    }
    Ok(text)
}

impl Graphql {
    async fn run(&self, request: &Request) -> Result<Value, Error> {
        let document = document(&request.metadata, &request.operation)?;
        let pairs = request.metadata.iter();
        let mut all = self.headers.clone();
        all.extend(headers(
            pairs.clone().map(|(k, v)| (k.as_str(), v.as_str())),
        )?);
        let variables: Map<String, Value> = pairs
            .filter_map(|(key, value)| {
                let name = key.strip_prefix("variable:")?;
                Some((name.to_owned(), Value::String(value.clone())))
            })
            .collect();
        let variables = if variables.is_empty() {
            Value::Null
        } else {
            Value::Object(variables)
        };
        let unavailable = |error: reqwest::Error| {
            let text = outrider_kit::error::chain(&error.without_url());
            Error::unavailable(format!("GraphQL Error: {text}"))
        };
        let body = json!({"query": document, "variables": variables}).to_string();
        let answer = self
            .client
            .post(&self.endpoint)
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Accept", "application/json; charset=utf-8")
            .headers(all)
            .body(body)
            .send()
            .await
            .map_err(unavailable)?;
        let status = answer.status();
        let body = body::read(answer, MAX_ANSWER).await.map_err(unavailable)?;
        let body = body
            .whole()
            .ok_or_else(|| Error::internal("GraphQL Error: the answer is too large"))?;
        let mut answer: Value = serde_json::from_slice(&body).map_err(|error| {
            if status.is_success() {
                return Error::internal(format!("GraphQL Error: decoding response: {error}"));
            }
            let code = status.as_u16();
            Error::internal(format!(
                "GraphQL Error: graphql: server returned a non-200 status code: {code}"
            ))
        })?;
        if let Some(first) = answer["errors"].get(0) {
            let message = first["message"].as_str().unwrap_or_default();
            return Err(Error::internal(format!(
                "GraphQL Error: graphql: {message}"
            )));
        }
        Ok(answer["data"].take())
    }
}

#[async_trait]
impl Output for Graphql {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        let operation = &request.operation;
        if !OPERATIONS.contains(&operation.as_str()) {
            return Err(Error::unsupported(format!(
                "GraphQL Error: invalid operation type: {operation}. Expected query or mutation"
            ))
            .into());
        }
        let started = jiff::Timestamp::now();
        let clock = Instant::now();
        let data = self.run(request).await?;
        let metadata = Pairs::from([
            ("operation".to_owned(), operation.clone()),
            ("start-time".to_owned(), started.to_string()),
            ("end-time".to_owned(), jiff::Timestamp::now().to_string()),
            (
                "duration".to_owned(),
                outrider_kit::duration::format(clock.elapsed()),
            ),
        ]);
        Ok(Some(Answer {
            data: data.to_string().into(),
            metadata,
            content_type: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_to_be_of_its_operation() {
        let read = |operation: &str, text: &str| {
            let metadata = Pairs::from([(operation.to_owned(), text.to_owned())]);
            document(&metadata, operation)
                .map(str::to_owned)
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("query", " query { a } "), Ok("query { a }".to_owned()));
        assert_eq!(
            read("query", "mutation { a }"),
            Err("GraphQL Error: command is not a query".to_owned())
        );
        assert_eq!(
            read("query", "queryx"),
            Err("GraphQL Error: command is not a query".to_owned())
        );
        assert_eq!(
            read("mutation", ""),
            Err(r#"GraphQL Error: required "mutation" not set"#.to_owned())
        );
    }
}
