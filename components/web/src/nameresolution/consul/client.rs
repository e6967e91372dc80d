//! The API of a Consul agent. <https://developer.hashicorp.com/consul/api-docs>

use std::time::Duration;

use http::Method;
use http::header::CACHE_CONTROL;
use outrider_components::{Error, Kind, Secret};
use outrider_kit::error::chain;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response, Url};
use serde_json::Value;

use super::settings::{Agent, Search};
use crate::body;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a request may take that does not wait for changes.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const MOST_BYTES: usize = 16 << 20;
const TOKEN: &str = "X-Consul-Token";
const INDEX: &str = "X-Consul-Index";

pub struct Consul {
    client: Client,
    agent: Agent,
}

/// A healthy instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Host, of the service or else of its node; empty if it has none.
    pub host: String,
    /// The port of its sidecar; none if its metadata have none.
    pub port: Option<String>,
}

/// What a search has found.
pub struct Found {
    pub instances: Vec<Instance>,
    /// From which the next search may wait for changes.
    pub index: u64,
}

impl Consul {
    pub fn new(agent: Agent) -> Result<Consul, Error> {
        let invalid = |error: reqwest::Error| {
            Error::invalid(format!("failed to init consul client: {}", chain(&error)))
        };
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(agent.insecure);
        if let Some(root) = &agent.root {
            let roots = Certificate::from_pem_bundle(root).map_err(invalid)?;
            builder = builder.tls_certs_only(roots);
        }
        if let Some(identity) = &agent.identity {
            builder = builder.identity(Identity::from_pem(identity).map_err(invalid)?);
        }
        let client = builder.build().map_err(invalid)?;
        Ok(Consul { client, agent })
    }

    /// Where the agent is, for messages: without a password.
    pub fn address(&self) -> &str {
        let address = &self.agent.address;
        address.rsplit_once('@').map_or(address, |(_, host)| host)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
    ) -> Result<RequestBuilder, Error> {
        let Agent {
            scheme, address, ..
        } = &self.agent;
        let url = Url::parse(&format!("{scheme}://{address}{path}"))
            .map_err(|error| Error::invalid(format!("consul: {}: {error}", self.address())))?;
        let mut request = self.client.request(method, url);
        if let Some(Secret(token)) = token.or(self.agent.token.as_ref()) {
            request = request.header(TOKEN, token);
        }
        if let Some((user, Secret(password))) = &self.agent.login {
            request = request.basic_auth(user, Some(password));
        }
        Ok(request)
    }

    async fn send(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<(u64, Vec<u8>), Error> {
        let unreachable = |error: reqwest::Error| Error::unavailable(chain(&error.without_url()));
        let sending = async {
            let response = request.send().await.map_err(unreachable)?;
            let status = response.status();
            let index = response.headers().get(INDEX);
            let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
            let body = read(response).await?;
            if status.is_success() {
                return Ok((index.unwrap_or(0), body));
            }
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().take(256).collect();
            let kind = match status.as_u16() {
                401 | 403 => Kind::Denied,
                500.. => Kind::Unavailable,
                _ => Kind::Internal,
            };
            let code = status.as_u16();
            let text = format!("Unexpected response code: {code} ({text})");
            Err(Error::new(kind, text))
        };
        let late = |_| Error::unavailable("context deadline exceeded");
        tokio::time::timeout(limit, sending).await.map_err(late)?
    }

    /// Fails where there is no agent.
    pub async fn check(&self) -> Result<(), Error> {
        let request = self.request(Method::GET, "/v1/agent/self", None)?;
        let request = request.query(&self.agent.query);
        self.send(request, LIMIT).await.map(drop)
    }

    pub async fn register(&self, service: &Value) -> Result<(), Error> {
        let request = self.request(Method::PUT, "/v1/agent/service/register", None)?;
        let request = request.query(&self.agent.query).body(service.to_string());
        self.send(request, LIMIT).await.map(drop)
    }

    pub async fn deregister(&self, id: &str) -> Result<(), Error> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        let path = format!("/v1/agent/service/deregister/{id}");
        let request = self.request(Method::PUT, &path, None)?;
        self.send(request.query(&self.agent.query), LIMIT)
            .await
            .map(drop)
    }

    /// The healthy instances of a service. With an index the answer comes when
    /// they have changed since, or after `wait`.
    pub async fn search(
        &self,
        service: &str,
        search: &Search,
        port_key: &str,
        since: Option<(u64, Duration)>,
    ) -> Result<Found, Error> {
        let service = utf8_percent_encode(service, NON_ALPHANUMERIC);
        let path = format!("/v1/health/service/{service}");
        let mut request = self.request(Method::GET, &path, search.token.as_ref())?;
        let is_said = |name: &str| search.query.iter().any(|(said, _)| *said == name);
        let mut query: Vec<(&str, String)> = self.agent.query.clone();
        query.retain(|(name, _)| !is_said(name));
        query.extend(search.query.iter().cloned());
        query.push(("passing", "1".to_owned()));
        let mut limit = LIMIT;
        match since {
            Some((index, wait)) => {
                query.push(("index", index.to_string()));
                query.push(("wait", format!("{}ms", wait.as_millis())));
                // The agent adds a sixteenth at most.
                limit += wait + wait / 16;
            }
            None if search.cached => {
                query.push(("cached", String::new()));
                if let Some(control) = &search.cache_control {
                    request = request.header(CACHE_CONTROL, control);
                }
            }
            None => {}
        }
        let (index, body) = self.send(request.query(&query), limit).await?;
        let all: Vec<Value> = serde_json::from_slice(&body)
            .map_err(|error| Error::internal(format!("the answer is no list: {error}")))?;
        let instances = all.iter().map(|entry| instance(entry, port_key));
        Ok(Found {
            instances: instances.collect(),
            index,
        })
    }
}

fn instance(entry: &Value, port_key: &str) -> Instance {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let own = text(&entry["Service"]["Address"]);
    Instance {
        host: match own.is_empty() {
            true => text(&entry["Node"]["Address"]),
            false => own,
        },
        port: Some(text(&entry["Service"]["Meta"][port_key])).filter(|port| !port.is_empty()),
    }
}

async fn read(response: Response) -> Result<Vec<u8>, Error> {
    let broken = |error: reqwest::Error| Error::unavailable(chain(&error));
    let body = body::read(response, MOST_BYTES).await.map_err(broken)?;
    body.whole()
        .ok_or_else(|| Error::internal("the answer is too large"))
}
