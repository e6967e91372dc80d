//! The gRPC API: validates callers and signs their certificates.

use std::net::IpAddr;

use async_trait::async_trait;
use outrider_proto::sentry::v1::ca_server::Ca;
use outrider_proto::sentry::v1::{SignCertificateRequest, SignCertificateResponse};
use outrider_security::{Issue, IssueError, Issued, Peer, SpiffeId};
use tonic::{Request, Response, Status};

use crate::ca::{Current, PublicKey, Workload};
use crate::metrics::Metrics;
use crate::validate::{Caller, Denial, Validators};

/// Each costs a signature.
const MAX_AUDIENCES: usize = 64;

/// Signs certificates for those who prove who they are.
pub struct Signing {
    pub current: Current,
    pub validators: Validators,
    /// What names of services end with.
    pub cluster_domain: String,
    pub metrics: Metrics,
}

#[async_trait]
impl Ca for Signing {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        self.metrics.received.inc();
        let peer = request.extensions().get::<Peer>();
        let from = peer.and_then(|peer| peer.address).map(|it| it.ip());
        let request = request.into_inner();
        match self.sign(&request, from).await {
            Ok(answer) => {
                self.metrics.success.inc();
                tracing::debug!(target: "dapr.sentry.server", "certificate issued to {}/{}", request.namespace, request.id);
                Ok(Response::new(answer))
            }
            Err(status) => {
                self.metrics.failed();
                tracing::info!(target: "dapr.sentry.server", "refused a certificate for '{}/{}': {:?}: {}", request.namespace.escape_debug(), request.id.escape_debug(), status.code(), status.message().escape_debug());
                Err(status)
            }
        }
    }
}

impl Signing {
    async fn sign(
        &self,
        request: &SignCertificateRequest,
        from: Option<IpAddr>,
    ) -> Result<SignCertificateResponse, Status> {
        let caller =
            self.validators
                .validate(request, from)
                .await
                .map_err(|denial| match denial {
                    Denial::Argument(text) => Status::invalid_argument(text),
                    Denial::Denied(text) => Status::permission_denied(text),
                    Denial::Busy(text) => Status::resource_exhausted(text),
                })?;
        if request.jwt_audiences.len() > MAX_AUDIENCES {
            return Err(Status::invalid_argument(format!(
                "at most {MAX_AUDIENCES} JWT audiences can be requested"
            )));
        }
        let key = PublicKey::from_request(&request.certificate_signing_request)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let failed = || Status::internal("failed to sign certificate");
        let id = SpiffeId::workload(&caller.trust_domain, &request.namespace, &request.id)
            .map_err(|_| failed())?;
        let workload = Workload {
            dns_names: self.dns_names(request, &caller),
            images: caller.images,
            id,
        };
        let policy = &self.current.policy;
        let authority = self.current.get();
        let leaf = authority
            .x509
            .sign(&key, &workload, policy)
            .map_err(|_| failed())?;
        let tokens = authority
            .jwt
            .as_ref()
            .map(|jwt| jwt.sign(&workload.id, &request.jwt_audiences, policy))
            .transpose()
            .map_err(|e| Status::internal(e.to_string()))?;
        let (jwt, per_audience_jwts) = match tokens {
            Some(tokens) => (Some(tokens.base), tokens.per_audience.into_iter().collect()),
            None => Default::default(),
        };
        Ok(SignCertificateResponse {
            workload_certificate: leaf.chain_pem.into(),
            trust_chain_certificates: vec![authority.x509.root_pem().to_owned().into()],
            valid_until: Some(prost_types::Timestamp {
                seconds: leaf.not_after.unix_timestamp(),
                nanos: 0,
            }),
            jwt,
            per_audience_jwts,
        })
    }

    /// The names under which the API server, or another scheduler, dials a
    /// service of the control plane.
    fn dns_names(&self, request: &SignCertificateRequest, caller: &Caller) -> Vec<String> {
        let namespace = &self.current.policy.namespace;
        if !caller.may_be_service || request.namespace != *namespace {
            return Vec::new();
        }
        match request.id.as_str() {
            "dapr-injector" => vec![format!("dapr-sidecar-injector.{namespace}.svc")],
            "dapr-operator" => vec![format!("dapr-webhook.{namespace}.svc")],
            "dapr-scheduler" => (0..3)
                .map(|n| {
                    format!(
                        "dapr-scheduler-server-{n}.dapr-scheduler-server.{namespace}.svc.{}",
                        self.cluster_domain
                    )
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Issues sentry's own certificate, which it signs itself.
pub struct Own(pub Current);

#[async_trait]
impl Issue for Own {
    async fn issue(&self, csr: &str) -> Result<Issued, IssueError> {
        let other = |e: &dyn std::fmt::Display| IssueError::Other(e.to_string());
        let policy = &self.0.policy;
        let key = PublicKey::from_request(csr.as_bytes()).map_err(|e| other(&e))?;
        let workload = Workload::application(policy.id().map_err(|e| other(&e))?);
        let leaf = self
            .0
            .get()
            .x509
            .sign(&key, &workload, policy)
            .map_err(|e| other(&e))?;
        Ok(Issued {
            chain_pem: leaf.chain_pem,
            jwt: None,
            audience_jwts: Default::default(),
        })
    }
}
