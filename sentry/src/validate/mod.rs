//! Whether a caller is who it claims to be. Callers see the texts of denials.

mod images;
pub mod jwks;
pub mod kubernetes;

use std::net::IpAddr;

use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_proto::sentry::v1::sign_certificate_request::TokenValidator;
use outrider_security::{SpiffeId, TrustDomain};

pub use jwks::Jwks;
pub use kubernetes::Kubernetes;

const LONGEST_ID: usize = 64;

/// A caller whose identity is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub trust_domain: TrustDomain,
    /// Whether the validator found that this is a service of the control plane,
    /// or believes every caller.
    pub may_be_service: bool,
    /// JSON; of the pod the caller runs in.
    pub images: Option<Vec<u8>>,
}

/// The validators of this process.
#[derive(Default)]
pub struct Validators {
    pub insecure: bool,
    pub jwks: Option<Jwks>,
    pub kubernetes: Option<Kubernetes>,
}

/// Why a caller gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The request names no validator that is enabled.
    Argument(&'static str),
    Denied(String),
    /// It cannot be checked at the moment.
    Busy(&'static str),
}

impl Validators {
    /// The validator of requests that name none.
    fn default_validator(&self) -> Option<TokenValidator> {
        if self.kubernetes.is_some() {
            Some(TokenValidator::Kubernetes)
        } else if self.insecure {
            Some(TokenValidator::Insecure)
        } else {
            None
        }
    }

    /// `from` is the address that the request came from.
    pub async fn validate(
        &self,
        request: &SignCertificateRequest,
        from: Option<IpAddr>,
    ) -> Result<Caller, Denial> {
        const NOT_ENABLED: Denial = Denial::Argument("the requested validator is not enabled");
        let named = TokenValidator::try_from(request.token_validator).map_err(|_| NOT_ENABLED)?;
        let validator = match named {
            TokenValidator::Unknown => self.default_validator().ok_or(Denial::Argument(
                "a validator name must be specified in this environment",
            ))?,
            named => named,
        };
        let verdict = match (validator, &self.jwks, &self.kubernetes) {
            (TokenValidator::Insecure, ..) if self.insecure => {
                common(request).map(|trust_domain| Caller {
                    trust_domain,
                    may_be_service: true,
                    images: None,
                })
            }
            (TokenValidator::Jwks, Some(jwks), _) => jwks.validate(request),
            (TokenValidator::Kubernetes, _, Some(kubernetes)) => {
                return kubernetes.validate(request, from).await;
            }
            _ => return Err(NOT_ENABLED),
        };
        verdict.map_err(Denial::Denied)
    }
}

/// What every request must have. Returns the trust domain that it asks for.
fn common(request: &SignCertificateRequest) -> Result<TrustDomain, String> {
    let mut wrong = Vec::new();
    if request.id.is_empty() {
        wrong.push("parameter app-id cannot be empty");
    } else if request.id.contains('.') {
        wrong.push("parameter app-id cannot contain dots");
    }
    if request.id.len() > LONGEST_ID {
        wrong.push("app ID must be 64 characters or less");
    }
    if request.certificate_signing_request.is_empty() {
        wrong.push("CSR is required");
    }
    if request.namespace.is_empty() {
        wrong.push("namespace is required");
    }
    if !wrong.is_empty() {
        return Err(format!("invalid request: {}", wrong.join("\n")));
    }
    if request.trust_domain.is_empty() {
        return Ok(TrustDomain::public());
    }
    request
        .trust_domain
        .parse()
        .map_err(|e: outrider_security::id::Invalid| e.to_string())
}

/// The id that a request asks for, if it can be one.
fn requested_id(request: &SignCertificateRequest, trust_domain: &TrustDomain) -> Option<SpiffeId> {
    SpiffeId::workload(trust_domain, &request.namespace, &request.id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        id: &str,
        namespace: &str,
        csr: &'static [u8],
        trust_domain: &str,
    ) -> SignCertificateRequest {
        SignCertificateRequest {
            id: id.into(),
            namespace: namespace.into(),
            certificate_signing_request: csr.into(),
            trust_domain: trust_domain.into(),
            ..Default::default()
        }
    }

    #[test]
    fn all_errors_of_a_request_are_returned_together() {
        assert_eq!(
            common(&request("", "", b"", "")).unwrap_err(),
            "invalid request: parameter app-id cannot be empty\nCSR is required\nnamespace is required"
        );
        assert_eq!(
            common(&request("a.b", "n", b"x", "")).unwrap_err(),
            "invalid request: parameter app-id cannot contain dots"
        );
        let long = "a".repeat(65);
        assert_eq!(
            common(&request(&long, "n", b"x", "")).unwrap_err(),
            "invalid request: app ID must be 64 characters or less"
        );
        assert!(common(&request(&long[1..], "n", b"x", "")).is_ok());
    }

    #[test]
    fn the_trust_domain_may_be_left_out_or_be_an_id() {
        let read = |td| common(&request("a", "n", b"x", td)).map(|td| td.to_string());
        assert_eq!(read(""), Ok("public".into()));
        assert_eq!(read("spiffe://td/path"), Ok("td".into()));
        assert_eq!(
            read("http://td"),
            Err("scheme is missing or invalid".into())
        );
        assert!(
            read("Td")
                .unwrap_err()
                .starts_with("trust domain characters are limited")
        );
    }

    #[tokio::test]
    async fn a_validator_must_be_there_to_be_used() {
        let mut asked = request("a", "n", b"x", "");
        let none = Validators::default();
        assert_eq!(
            none.validate(&asked, None).await,
            Err(Denial::Argument(
                "a validator name must be specified in this environment"
            ))
        );
        let insecure = Validators {
            insecure: true,
            ..Default::default()
        };
        assert!(insecure.validate(&asked, None).await.is_ok());
        for number in [2, 3, 99, -1] {
            asked.token_validator = number;
            assert_eq!(
                insecure.validate(&asked, None).await,
                Err(Denial::Argument("the requested validator is not enabled"))
            );
        }
    }
}
