//! Callers that identify themselves by the token of their pod.

mod failures;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrider_host::server::Source;
use outrider_k8s::Client;
use outrider_k8s::objects::{self, Collection};
use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_security::{SpiffeId, TrustDomain};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Caller, Denial, common, images};
use failures::Failures;

/// Reviews that the API server is asked for at once, and how long a caller
/// waits for its turn and for the answer.
const REVIEWS: usize = 64;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

const LEGACY_AUDIENCE: &str = "dapr.io/sentry";
const SERVICES: [&str; 5] = ["operator", "placement", "injector", "sentry", "scheduler"];

pub struct Kubernetes {
    pub client: Client,
    /// Sentry's own id, which tokens are for.
    pub audience: SpiffeId,
    /// Sentry's own, where the rest of the control plane lives too.
    pub namespace: String,
    pub trust_domain: TrustDomain,
    /// Whether the annotation alone makes a pod of that namespace a service of
    /// the control plane, under whatever account it runs.
    pub any_account_may_be_service: bool,
    pub reviews: Reviews,
}

/// The reviews under way, and the addresses that sent invalid tokens.
pub struct Reviews {
    turns: Semaphore,
    failures: Failures,
}

impl Default for Reviews {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(REVIEWS),
            failures: Failures::default(),
        }
    }
}

/// The account of a token, by the API server's review.
struct Account {
    namespace: String,
    name: String,
}

impl Kubernetes {
    /// `from` is the address that the request came from.
    pub async fn validate(
        &self,
        request: &SignCertificateRequest,
        from: Option<IpAddr>,
    ) -> Result<Caller, Denial> {
        common(request).map_err(Denial::Denied)?;
        // A malformed token does not cost a review.
        let pod_name = pod_name(&request.token).map_err(Denial::Denied)?;
        let account = self.account(&request.token, from).await?;
        self.caller(request, &account, pod_name)
            .await
            .map_err(Denial::Denied)
    }

    /// The account that the token belongs to.
    async fn account(&self, token: &str, from: Option<IpAddr>) -> Result<Account, Denial> {
        let from = from.map(Source::from);
        let failures = &self.reviews.failures;
        let allowed = || match from {
            Some(from) if !failures.allows(from, Instant::now()) => Err(Denial::Busy(
                "too many invalid tokens came from this address: try again later",
            )),
            _ => Ok(()),
        };
        allowed()?;
        let review = async {
            let _turn = self.reviews.turns.acquire().await;
            // Reviews that ended meanwhile may have failed.
            allowed()?;
            self.review(token).await.map_err(Denial::Denied)
        };
        let status = tokio::time::timeout(REVIEW_TIMEOUT, review)
            .await
            .map_err(|_| {
                Denial::Busy("the API server does not review tokens in time: try again later")
            })??;
        let account = account_of(&status, &self.audiences());
        if account.is_err()
            && let Some(from) = from
        {
            failures.count(from, Instant::now());
        }
        account.map_err(Denial::Denied)
    }

    fn audiences(&self) -> [&str; 2] {
        [LEGACY_AUDIENCE, self.audience.as_str()]
    }

    async fn caller(
        &self,
        request: &SignCertificateRequest,
        account: &Account,
        pod_name: String,
    ) -> Result<Caller, String> {
        let pod = self
            .get(Collection::PODS, &account.namespace, &pod_name)
            .await
            .ok_or("failed to get pod of identity")?;
        if account.namespace != request.namespace {
            return Err(format!(
                "namespace mismatch; received namespace: {}",
                request.namespace
            ));
        }
        if pod["spec"]["serviceAccountName"] != account.name.as_str() {
            return Err("pod service account mismatch".into());
        }
        let annotation = |name: &str| pod["metadata"]["annotations"][name].as_str();
        let filled = |name: &str| annotation(name).filter(|text| !text.is_empty());
        let service = annotation("dapr.io/control-plane");
        let expected = match service {
            Some(service) => {
                self.service_id(service, &pod_name, account, annotation("dapr.io/app-id"))?
            }
            // As the injector does: an annotation that is left empty counts as absent.
            None => filled("dapr.io/app-id").unwrap_or(&pod_name).to_owned(),
        };
        if expected != request.id {
            return Err(format!(
                "app-id mismatch. expected: {expected}, received: {}",
                request.id
            ));
        }
        let trust_domain = match service {
            Some(_) => self.trust_domain.clone(),
            None => {
                let configuration = filled("dapr.io/config").map(str::trim);
                let domain = self.app_domain(&account.namespace, configuration).await?;
                self.check_not_reserved(&account.namespace, &expected, &domain)?;
                domain
            }
        };
        Ok(Caller {
            trust_domain,
            may_be_service: service.is_some(),
            images: images::of_pod(&pod),
        })
    }

    /// <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/>
    async fn review(&self, token: &str) -> Result<Value, String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": self.audiences()},
        });
        let reviewing = async {
            let path = Collection::TOKEN_REVIEWS.path(None)?;
            objects::create(&self.client, &path, &review).await
        };
        let mut answer = reviewing
            .await
            .map_err(|e: outrider_k8s::Error| format!("token review failed: {e}"))?;
        Ok(answer["status"].take())
    }

    /// The id of a pod that is annotated as a service of the control plane.
    fn service_id(
        &self,
        service: &str,
        pod_name: &str,
        account: &Account,
        app_id: Option<&str>,
    ) -> Result<String, String> {
        if account.namespace != self.namespace {
            return Err(format!(
                "control plane service in namespace '{}' is not allowed",
                account.namespace
            ));
        }
        if !SERVICES.contains(&service) {
            return Err(format!("unknown control plane service '{pod_name}'"));
        }
        if app_id.is_some() {
            return Err(format!(
                "control plane service '{pod_name}' cannot have annotation 'dapr.io/app-id'"
            ));
        }
        let id = format!("dapr-{service}");
        if account.name != id && !self.any_account_may_be_service {
            return Err(format!(
                "control plane service '{pod_name}' must run under service account '{id}', not '{}'",
                account.name
            ));
        }
        Ok(id)
    }

    /// Without this check an application could get the id of a service by its
    /// Configuration.
    fn check_not_reserved(
        &self,
        namespace: &str,
        id: &str,
        trust_domain: &TrustDomain,
    ) -> Result<(), String> {
        let named_like_service = id
            .strip_prefix("dapr-")
            .is_some_and(|s| SERVICES.contains(&s));
        if named_like_service && namespace == self.namespace && *trust_domain == self.trust_domain {
            return Err(format!("app-id '{id}' is reserved for the control plane"));
        }
        Ok(())
    }

    /// An object; none as well if it cannot be read.
    async fn get(&self, collection: Collection, namespace: &str, name: &str) -> Option<Value> {
        let path = collection.object(namespace, name).ok()?;
        objects::get(&self.client, &path).await.ok()?
    }

    async fn app_domain(
        &self,
        namespace: &str,
        configuration: Option<&str>,
    ) -> Result<TrustDomain, String> {
        let Some(name) = configuration else {
            return Ok(TrustDomain::public());
        };
        let found = self
            .get(Collection::CONFIGURATIONS, namespace, name)
            .await
            .ok_or("failed to get configuration")?;
        match found["spec"]["accessControl"]["trustDomain"].as_str() {
            None | Some("") => Ok(TrustDomain::public()),
            Some(domain) => domain
                .parse()
                .map_err(|e| format!("failed to parse trust domain \"{domain}\": {e}")),
        }
    }
}

fn account_of(status: &Value, asked: &[&str]) -> Result<Account, String> {
    if let Some(error) = status["error"].as_str().filter(|e| !e.is_empty()) {
        return Err(format!("invalid token: {error}"));
    }
    if status["authenticated"] != true {
        return Err("authentication failed".into());
    }
    // A server that does not look at audiences takes any token of its cluster;
    // it answers with none.
    let found = status["audiences"].as_array().into_iter().flatten();
    if !found
        .into_iter()
        .any(|it| asked.iter().any(|asked| it == asked))
    {
        return Err("authentication failed".into());
    }
    let user = status["user"]["username"].as_str().unwrap_or_default();
    match user.split(':').collect::<Vec<_>>()[..] {
        ["system", "serviceaccount", namespace, name] => Ok(Account {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        _ => Err("provided token is not a properly structured service account token".into()),
    }
}

/// Claims are read without verifying, which the API server has done. A bare
/// JSON object is accepted too.
fn pod_name(token: &str) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("failed to parse Kubernetes token: {why}");
    let mut parts = token.trim().split('.');
    let claims = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(claims), Some(_), None) if !token.trim_start().starts_with('{') => {
            URL_SAFE_NO_PAD.decode(claims).map_err(|e| failed(&e))?
        }
        _ => token.as_bytes().to_vec(),
    };
    let claims: Value = serde_json::from_slice(&claims).map_err(|e| failed(&e))?;
    match claims["kubernetes.io"]["pod"]["name"].as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err("kubernetes.io/pod/name claim is missing from Kubernetes token".into()),
    }
}

#[cfg(test)]
mod tests;
