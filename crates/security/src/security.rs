//! The handle that every process holds, and the task behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::anchors::{self, Source, TrustAnchors};
use crate::dial::Connector;
use crate::disk::Directory;
use crate::id::{Invalid, SpiffeId, TrustDomain};
use crate::identity::{self, Identity, JwtError, Key, Pending, Svid};
use crate::listen::Acceptor;
use crate::request::{Issue, IssueError, SentryClient};
use crate::tally::{Reason, Tally};
use crate::tls::{self, Clients, Expected};
use crate::token;

const WEB: &[&[u8]] = &[b"h2", b"http/1.1"];
const SERVICES: [&str; 5] = [
    "dapr-operator",
    "dapr-placement",
    "dapr-injector",
    "dapr-sentry",
    "dapr-scheduler",
];
/// The clock may be set while we sleep, so no sleep is longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const AFTER_FAILURE: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// Where the control plane lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    pub trust_domain: TrustDomain,
    pub namespace: String,
}

impl ControlPlane {
    /// `service` is `dapr-sentry`, for instance.
    pub fn id(&self, service: &str) -> Result<SpiffeId, Invalid> {
        SpiffeId::workload(&self.trust_domain, &self.namespace, service)
    }
}

/// What a process needs to get its identity.
pub struct Options {
    pub app_id: String,
    pub namespace: String,
    pub control_plane: ControlPlane,
    pub anchors: Source,
    /// `host:port`
    pub sentry_address: String,
    pub token: token::Source,
    pub key: Key,
    /// A token is asked for each of these.
    pub jwt_audiences: Vec<String>,
    /// Where to keep the identity as files, if anywhere.
    pub directory: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Anchors(#[from] anchors::Error),
    #[error("invalid control plane identity: {0}")]
    ControlPlane(#[from] Invalid),
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot write the identity: {0}")]
    Directory(std::io::Error),
}

impl FetchError {
    fn reason(&self) -> Reason {
        match self {
            Self::Issue(IssueError::Connect(_) | IssueError::Other(_)) => Reason::Connection,
            Self::Issue(IssueError::Token(_)) => Reason::Token,
            Self::Issue(IssueError::ValidUntil(_)) => Reason::Time,
            Self::Identity(identity::Error::Jwt(JwtError::Audience)) => Reason::JwtAudience,
            Self::Identity(identity::Error::Jwt(_)) => Reason::JwtForm,
            Self::Issue(IssueError::Sign(_) | IssueError::Answer(_))
            | Self::Identity(_)
            | Self::WrongIdentity { .. } => Reason::Sign,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("sentry answered with the identity '{got}' where '{wanted}' was asked for")]
    WrongIdentity { got: SpiffeId, wanted: String },
}

/// What a process uses to listen and dial; plaintext when mTLS is off. Cheap to
/// clone.
#[derive(Clone)]
pub struct Security(Option<Arc<Inner>>);

struct Inner {
    tally: Arc<Tally>,
    anchors: TrustAnchors,
    identity: Identity,
    control_plane: ControlPlane,
}

/// Keeps the identity and the trust anchors fresh. Must run as long as the
/// process does.
#[must_use = "without upkeep the identity expires"]
pub struct Upkeep {
    inner: Arc<Inner>,
    fetch: Fetch,
    follow: Option<PathBuf>,
    directory: Option<Directory>,
}

impl Security {
    /// No identity; everything is plaintext.
    pub fn disabled() -> Self {
        tracing::warn!(target: "dapr.runtime.security", "mTLS is disabled. Skipping certificate request and tls validation");
        Self(None)
    }

    /// The same without a log line: for connections to other sidecars when only
    /// those to the control plane use an identity.
    pub fn plaintext() -> Self {
        Self(None)
    }

    /// Gets an identity from sentry. Retries without limit and logs why: the
    /// caller drops it when the process has to stop.
    pub async fn start(options: Options) -> Result<(Self, Upkeep), StartError> {
        let anchors = TrustAnchors::load(&options.anchors).await?;
        let sentry = Expected::Id(options.control_plane.id("dapr-sentry")?);
        let is_service = SERVICES.contains(&options.app_id.as_str())
            && options.namespace == options.control_plane.namespace;
        let client = SentryClient {
            address: options.sentry_address,
            connector: Connector::anonymous(&anchors, sentry)?,
            app_id: options.app_id.clone(),
            namespace: options.namespace.clone(),
            trust_domain: is_service.then(|| options.control_plane.trust_domain.to_string()),
            token: options.token,
            jwt_audiences: options.jwt_audiences,
        };
        let fetch = Fetch {
            issuer: Arc::new(client),
            key: options.key,
            path: format!("/ns/{}/{}", options.namespace, options.app_id),
            tally: Arc::default(),
        };
        // The file is followed meanwhile: sentry may be refused until it changes.
        let follow = match options.anchors {
            Source::File(path) => Some(path),
            Source::Text(_) => None,
        };
        tracing::info!(target: "dapr.runtime.security", "Fetching initial identity");
        let svid = match &follow {
            Some(path) => tokio::select! {
                svid = fetch.retry_until_issued(&anchors) => svid,
                never = anchors.follow(path) => match never {},
            },
            None => fetch.retry_until_issued(&anchors).await,
        };
        tracing::info!(target: "dapr.runtime.security", "Security is initialized successfully");
        let mut directory = options.directory.map(Directory::new);
        if let Some(directory) = &mut directory {
            directory
                .write(&svid, &anchors.current())
                .map_err(StartError::Directory)?;
        }
        let inner = Arc::new(Inner {
            tally: fetch.tally.clone(),
            anchors,
            identity: Identity::new(svid),
            control_plane: options.control_plane,
        });
        let upkeep = Upkeep {
            inner: inner.clone(),
            fetch,
            follow,
            directory,
        };
        Ok((Self(Some(inner)), upkeep))
    }

    /// Signs through `issuer` instead of asking sentry: for sentry itself.
    pub async fn start_with(
        issuer: Arc<dyn Issue>,
        anchors: TrustAnchors,
        control_plane: ControlPlane,
        app_id: &str,
    ) -> Result<(Self, Upkeep), StartError> {
        let fetch = Fetch {
            issuer,
            key: Key::Ed25519,
            path: control_plane.id(app_id)?.path().to_owned(),
            tally: Arc::default(),
        };
        let identity = Identity::new(fetch.retry_until_issued(&anchors).await);
        let inner = Arc::new(Inner {
            tally: fetch.tally.clone(),
            anchors,
            identity,
            control_plane,
        });
        let upkeep = Upkeep {
            inner: inner.clone(),
            fetch,
            follow: None,
            directory: None,
        };
        Ok((Self(Some(inner)), upkeep))
    }

    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    pub fn id(&self) -> Option<SpiffeId> {
        let inner = self.0.as_ref()?;
        Some(inner.identity.current().id().clone())
    }

    /// How many certificates were issued and how many requests failed so far.
    pub fn tally(&self) -> Option<Arc<Tally>> {
        self.0.as_ref().map(|inner| inner.tally.clone())
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.0.as_ref().map(|inner| &inner.identity)
    }

    pub fn anchors(&self) -> Option<&TrustAnchors> {
        self.0.as_ref().map(|inner| &inner.anchors)
    }

    /// For a gRPC server: ALPN is `h2`.
    pub fn acceptor(&self, clients: Clients) -> Result<Acceptor, rustls::Error> {
        self.acceptor_for(clients, tls::H2)
    }

    /// For an HTTPS server without client certificates, a webhook for instance.
    pub fn web_acceptor(&self) -> Result<Acceptor, rustls::Error> {
        self.acceptor_for(Clients::Anonymous, WEB)
    }

    fn acceptor_for(
        &self,
        clients: Clients,
        protocols: &[&[u8]],
    ) -> Result<Acceptor, rustls::Error> {
        let Some(inner) = &self.0 else {
            return Ok(Acceptor::plaintext());
        };
        tls::server_config(&inner.anchors, &inner.identity, clients, protocols).map(Acceptor::tls)
    }

    /// For a gRPC client: ALPN is `h2`, and the server must be `expected`.
    pub fn connector(&self, expected: Expected) -> Result<Connector, rustls::Error> {
        let Some(inner) = &self.0 else {
            return Ok(Connector::plaintext());
        };
        tls::client_config(&inner.anchors, Some(&inner.identity), expected, tls::H2)
            .map(Connector::tls)
    }

    /// For a gRPC client of a control-plane service: `dapr-placement`, say.
    pub fn connector_to_service(&self, service: &str) -> Result<Connector, StartError> {
        let Some(inner) = &self.0 else {
            return Ok(Connector::plaintext());
        };
        let expected = Expected::Id(inner.control_plane.id(service)?);
        Ok(self.connector(expected)?)
    }

    /// For a gRPC client of another sidecar.
    pub fn connector_to_app(
        &self,
        namespace: &str,
        app_id: &str,
    ) -> Result<Connector, rustls::Error> {
        self.connector(Expected::Workload {
            namespace: namespace.to_owned(),
            app_id: app_id.to_owned(),
        })
    }
}

/// How a certificate is requested.
struct Fetch {
    issuer: Arc<dyn Issue>,
    key: Key,
    /// What the id in the certificate must end with.
    path: String,
    tally: Arc<Tally>,
}

impl Fetch {
    async fn once(&self, anchors: &TrustAnchors) -> Result<Svid, FetchError> {
        let pending = Pending::new(self.key)?;
        let issued = self.issuer.issue(&pending.csr).await?;
        let svid = pending.complete(issued, &anchors.current())?;
        if svid.id().path() != self.path {
            return Err(FetchError::WrongIdentity {
                got: svid.id().clone(),
                wanted: self.path.clone(),
            });
        }
        Ok(svid)
    }

    async fn retry_until_issued(&self, anchors: &TrustAnchors) -> Svid {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.once(anchors).await {
                Ok(svid) => {
                    self.tally.first.count();
                    return svid;
                }
                Err(error) => {
                    self.tally.first.count_failure(error.reason());
                    tracing::warn!(target: "dapr.runtime.security", "failed to retrieve the initial identity: {error}; trying again in {}s", backoff.as_secs());
                }
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(AFTER_FAILURE);
        }
    }
}

impl Upkeep {
    /// Returns once `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            inner,
            fetch,
            follow,
            directory,
        } = self;
        let following = async {
            match &follow {
                Some(path) => inner.anchors.follow(path).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            never = following => match never {},
            () = renew(&inner, &fetch, directory) => {}
        }
    }
}

async fn renew(inner: &Inner, fetch: &Fetch, mut directory: Option<Directory>) {
    let mut anchors = inner.anchors.subscribe();
    let mut due = {
        let svid = inner.identity.current();
        let due = svid.renewal(SystemTime::now());
        tracing::info!(target: "dapr.runtime.security", "Starting workload identity expiry watcher; cert expires on: {}, renewal at: {}", shown(svid.not_after()), shown(due));
        due
    };
    loop {
        // New anchors need a certificate under them: peers that already have
        // them refuse the old one.
        tokio::select! {
            () = sleep_until(due) => {}
            Ok(()) = anchors.changed() => {}
        }
        let svid = match fetch.once(&inner.anchors).await {
            Ok(svid) => {
                fetch.tally.renewals.count();
                svid
            }
            Err(error) => {
                fetch.tally.renewals.count_failure(error.reason());
                tracing::error!(target: "dapr.runtime.security", "Error renewing identity, trying again in 10 seconds: {error}");
                due = SystemTime::now() + AFTER_FAILURE;
                continue;
            }
        };
        tracing::info!(target: "dapr.runtime.security", "Successfully renewed workload identity; cert expires on: {}", shown(svid.not_after()));
        due = svid.renewal(SystemTime::now());
        if let Some(directory) = &mut directory
            && let Err(error) = directory.write(&svid, &inner.anchors.current())
        {
            tracing::error!(target: "dapr.runtime.security", "cannot write the identity: {error}");
        }
        inner.identity.replace(svid);
    }
}

async fn sleep_until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

fn shown(time: SystemTime) -> impl std::fmt::Display {
    jiff::Timestamp::try_from(time)
        .unwrap_or(jiff::Timestamp::MAX)
        .strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
        .to_string()
}
