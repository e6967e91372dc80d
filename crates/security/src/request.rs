//! Asking sentry for a certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use outrider_kit::{error, grpc};
use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_proto::sentry::v1::ca_client::CaClient;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::dial::Connector;
use crate::token;

const DIAL: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;
const ATTEMPT: Duration = Duration::from_secs(3);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// A signed certificate, not yet checked.
pub struct Issued {
    /// Leaf first, then the issuers.
    pub chain_pem: String,
    pub jwt: Option<String>,
    pub audience_jwts: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("error establishing connection to sentry: {0}")]
    Connect(String),
    #[error("error obtaining token: {0}")]
    Token(#[from] token::Error),
    #[error("error from sentry SignCertificate: {}", grpc::status(.0.code() as i32, .0.message()))]
    Sign(Box<Status>),
    #[error("error parsing ValidUntil: {0}")]
    ValidUntil(&'static str),
    #[error("error parsing newly signed certificate: {0}")]
    Answer(String),
    #[error("{0}")]
    Other(String),
}

/// Something that signs: sentry over the network, or a CA in this process.
#[async_trait]
pub trait Issue: Send + Sync + 'static {
    /// `csr` is PEM.
    async fn issue(&self, csr: &str) -> Result<Issued, IssueError>;
}

/// Asks the sentry of the control plane.
pub struct SentryClient {
    pub address: String,
    /// Must accept sentry's id only, and present nothing.
    pub connector: Connector,
    pub app_id: String,
    pub namespace: String,
    /// Set by control-plane services only; sentry decides for applications.
    pub trust_domain: Option<String>,
    pub token: token::Source,
    pub jwt_audiences: Vec<String>,
}

#[async_trait]
impl Issue for SentryClient {
    async fn issue(&self, csr: &str) -> Result<Issued, IssueError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|e| {
                IssueError::Connect(format!("address '{}': {}", self.address, error::chain(&e)))
            })?
            .connect_timeout(DIAL);
        let channel = endpoint
            .connect_with_connector(self.connector.clone())
            .await
            .map_err(|e| {
                IssueError::Connect(format!("'{}': {}", self.address, error::chain(&e)))
            })?;
        let mut client = CaClient::new(channel);
        let (token, validator) = self.token.read().await?;
        let request = SignCertificateRequest {
            id: self.app_id.clone(),
            token,
            trust_domain: self.trust_domain.clone().unwrap_or_default(),
            namespace: self.namespace.clone(),
            certificate_signing_request: csr.as_bytes().to_vec().into(),
            token_validator: validator.into(),
            jwt_audiences: self.jwt_audiences.clone(),
        };
        let mut attempt = 1;
        let answer = loop {
            let call = client.sign_certificate(request.clone());
            let failure = match tokio::time::timeout(ATTEMPT, call).await {
                Ok(Ok(answer)) => break answer.into_inner(),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("sentry did not answer within 3s"),
            };
            let is_retryable = matches!(
                failure.code(),
                Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded
            );
            if !is_retryable || attempt == ATTEMPTS {
                return Err(IssueError::Sign(Box::new(failure)));
            }
            attempt += 1;
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        };
        let until = answer
            .valid_until
            .ok_or(IssueError::ValidUntil("it is absent"))?;
        if !(0..1_000_000_000).contains(&until.nanos) {
            return Err(IssueError::ValidUntil("its nanoseconds are out of range"));
        }
        Ok(Issued {
            chain_pem: String::from_utf8(answer.workload_certificate.to_vec())
                .map_err(|e| IssueError::Answer(e.to_string()))?,
            jwt: answer.jwt.filter(|t| !t.is_empty()),
            audience_jwts: answer.per_audience_jwts.into_iter().collect(),
        })
    }
}
