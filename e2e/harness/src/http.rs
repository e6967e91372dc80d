//! A client that returns status, headers and body.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    async fn read(response: http::Response<Incoming>) -> Result<Answer> {
        let (parts, body) = response.into_parts();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "{} with a body that is not JSON: {}",
                self.status,
                self.text()
            )
        })
    }

    /// The `errorCode` and `message` of an error.
    pub fn error(&self) -> Result<(String, String)> {
        let json = self.json()?;
        let text = |key: &str| {
            let text = json[key].as_str().map(str::to_owned);
            text.with_context(|| format!("no {key} in {json}"))
        };
        Ok((text("errorCode")?, text("message")?))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A client of one address.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
    headers: HeaderMap,
}

impl Client {
    pub fn new(port: u16) -> Client {
        Client::at(&format!("127.0.0.1:{port}"))
    }

    /// Of another address than loopback.
    pub fn at(authority: &str) -> Client {
        Client {
            authority: authority.to_owned(),
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            headers: HeaderMap::new(),
        }
    }

    /// The same in HTTP/2 without TLS.
    pub fn h2c(port: u16) -> Client {
        Client {
            pool: Pool::builder(TokioExecutor::new())
                .http2_only(true)
                .build_http(),
            ..Client::new(port)
        }
    }

    /// Sends a header with every request.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Client {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// Sends a request whose URI is only a path.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        *request.uri_mut() = self.url(&request.uri().to_string()).parse()?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let what = format!("{} {}", request.method(), request.uri());
        let response = self
            .pool
            .request(request)
            .await
            .with_context(|| what.clone())?;
        Answer::read(response).await.context(what)
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json");
        self.send(request.body(Full::new(body.into()))?).await
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Request::get(path).body(Full::default())?).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request(Method::POST, path, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request(Method::PUT, path, body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Request::delete(path).body(Full::default())?)
            .await
    }

    /// Whether a page answers with this status right now.
    pub async fn answers(&self, path: &str, status: StatusCode) -> bool {
        self.get(path)
            .await
            .is_ok_and(|answer| answer.status == status.as_u16())
    }
}

/// One request over a Unix socket.
pub async fn over_unix(socket: &Path, request: Request<Full<Bytes>>) -> Result<Answer> {
    let stream = tokio::net::UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        Answer::read(response).await
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
