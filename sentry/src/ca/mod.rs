//! The certificate authority: its keys and certificates, and the certificates and
//! tokens it signs. No transport.

mod issue;
pub mod jwt;
mod store;
mod watch;
pub mod x509;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use outrider_security::{Roots, SpiffeId, TrustAnchors, TrustDomain};

use crate::flags;
use crate::metrics::Metrics;

pub use issue::{PublicKey, Workload};
pub use store::{Cluster, Store};

/// How certificates are made.
#[derive(Debug, Clone)]
pub struct Policy {
    pub trust_domain: TrustDomain,
    /// Sentry's own namespace.
    pub namespace: String,
    pub workload_ttl: Duration,
    pub clock_skew: Duration,
    pub jwt: Option<flags::Jwt>,
}

impl Policy {
    /// Sentry's own id.
    pub fn id(&self) -> Result<SpiffeId, outrider_security::id::Invalid> {
        SpiffeId::workload(&self.trust_domain, &self.namespace, "dapr-sentry")
    }
}

/// Texts as they are stored, PEM and JSON; `None` where nothing is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    pub x509: Option<x509::Material>,
    pub jwt: jwt::Material,
}

/// One version of the authority, ready to sign.
pub struct Authority {
    pub x509: x509::Signer,
    pub jwt: Option<jwt::Signer>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to get CA bundle: failed to verify CA bundle: {0}")]
    X509(#[from] x509::Invalid),
    #[error("failed to get CA bundle: {0}")]
    Jwt(#[from] jwt::Invalid),
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("failed to generate issuer cert: {0}")]
    Generate(#[from] rcgen::Error),
}

impl Authority {
    /// Loads what is stored; generates and stores what is not.
    async fn open(store: &Store, policy: &Policy) -> Result<(Self, Stored), Error> {
        let mut stored = store.load().await?;
        if stored.x509.is_none() {
            tracing::info!(target: "dapr.sentry.ca", "Root and issuer certs not found: generating self signed CA");
            tracing::info!(target: "dapr.sentry.ca", "Generating self-signed CA certs and persisting to store");
            let made = x509::generate(&policy.trust_domain, &policy.namespace, policy.clock_skew)?;
            stored.x509 = Some(store.save_x509(made).await?);
            tracing::info!(target: "dapr.sentry.ca", "Self-signed certs and JWT root key generated and persisted successfully");
        } else {
            tracing::info!(target: "dapr.sentry.ca", "Root and issuer certs found: using credentials from store");
        }
        if let Some(settings) = &policy.jwt
            && !stored.jwt.is_complete()
        {
            tracing::info!(target: "dapr.sentry.ca", "Generating JWT signing key and persisting to store");
            stored.jwt = store.save_jwt(jwt::generate(settings)?).await?;
        }
        let authority = Self::verified(&stored, policy)?;
        tracing::info!(target: "dapr.sentry.ca", "CA certificate key pair ready");
        Ok((authority, stored))
    }

    fn verified(stored: &Stored, policy: &Policy) -> Result<Self, Error> {
        let material = stored.x509.as_ref().ok_or(x509::Invalid::NoRoots)?;
        Ok(Self {
            x509: x509::Signer::verified(material, policy)?,
            jwt: jwt::Signer::verified(&stored.jwt, policy)?,
        })
    }

    fn measure(&self, metrics: &Metrics) {
        metrics.issuer_changed.inc();
        metrics.issuer_expiry.set(self.x509.issuer_expiry());
        metrics.root_expiry.set(self.x509.root_expiry());
    }
}

/// The current authority, replaced when its material changes. Cloning shares it.
#[derive(Clone)]
pub struct Current {
    authority: Arc<ArcSwap<Authority>>,
    pub anchors: TrustAnchors,
    pub policy: Arc<Policy>,
}

impl Current {
    /// Loads the authority from the store. The second value keeps the first up to
    /// date.
    pub async fn open(
        store: Store,
        policy: Policy,
        metrics: Metrics,
    ) -> Result<(Self, Refresh), Error> {
        let mut seen = watch::Files::new(store.watched());
        let (authority, stored) = Authority::open(&store, &policy).await?;
        if matches!(store, Store::Files(_)) {
            // What was just written here is not a change.
            seen.changed();
        }
        authority.measure(&metrics);
        warn_of_expiry(&authority);
        let anchors = TrustAnchors::new(authority.x509.roots()?);
        let current = Self {
            authority: Arc::new(ArcSwap::from_pointee(authority)),
            anchors,
            policy: Arc::new(policy),
        };
        let refresh = Refresh {
            current: current.clone(),
            store,
            stored,
            seen,
            metrics,
        };
        Ok((current, refresh))
    }

    pub fn get(&self) -> Arc<Authority> {
        self.authority.load_full()
    }
}

/// Follows the stored material.
pub struct Refresh {
    current: Current,
    store: Store,
    stored: Stored,
    seen: watch::Files,
    metrics: Metrics,
}

impl Refresh {
    /// Runs until it is dropped. Invalid material is logged, and the last valid one
    /// stays in use.
    pub async fn run(mut self) {
        let mut next_warning = tokio::time::Instant::now() + EXPIRY_CHECK;
        loop {
            tokio::time::sleep(watch::POLL).await;
            if tokio::time::Instant::now() >= next_warning {
                warn_of_expiry(&self.current.get());
                next_warning += EXPIRY_CHECK;
            }
            if !self.seen.changed() {
                continue;
            }
            // Files are replaced one by one: wait until they no longer change.
            while {
                tokio::time::sleep(watch::POLL).await;
                self.seen.changed()
            } {}
            if let Err(error) = self.reload().await {
                tracing::error!(target: "dapr.sentry", "Issuer credentials changed, but cannot be used; the former ones stay in use: {error}");
            }
        }
    }

    async fn reload(&mut self) -> Result<(), Error> {
        let stored = self.store.load().await?;
        if stored == self.stored {
            return Ok(());
        }
        tracing::info!(target: "dapr.sentry", "Issuer credentials changed; reloading");
        let authority = Authority::verified(&stored, &self.current.policy)?;
        let roots: Roots = authority.x509.roots()?;
        authority.measure(&self.metrics);
        warn_of_expiry(&authority);
        self.stored = stored;
        self.current.authority.store(Arc::new(authority));
        // Our own certificate is renewed under the new issuer because of this.
        self.current.anchors.replace(roots);
        Ok(())
    }
}

const EXPIRY_CHECK: Duration = Duration::from_secs(3600);
const EXPIRY_NOTICE: i64 = 30 * 24 * 3600;

/// The CA's own certificates are not renewed automatically: warns before they
/// expire.
fn warn_of_expiry(authority: &Authority) {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    for (what, at) in [
        ("root", authority.x509.root_expiry()),
        ("issuer", authority.x509.issuer_expiry()),
    ] {
        let left = at - now;
        if left < EXPIRY_NOTICE {
            tracing::warn!(target: "dapr.sentry", "Dapr {what} certificate expiration warning: certificate expires in {} days and {} hours", left / 86400, left % 86400 / 3600);
        }
    }
}
