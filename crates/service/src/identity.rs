//! A certificate of sentry.

use std::path::PathBuf;

use anyhow::Context;
use outrider_k8s::{Client, trust};
use outrider_security::identity::Key;
use outrider_security::{
    ControlPlane, Options, Security, TrustAnchors, TrustDomain, anchors, token,
};

use crate::Process;

/// Who a service is, and where it learns whom to trust.
pub struct Identity {
    pub app_id: &'static str,
    /// The control plane's.
    pub namespace: String,
    /// The control plane's.
    pub trust_domain: TrustDomain,
    pub sentry_address: String,
    pub trust_anchors_file: PathBuf,
    /// The value of `DAPR_SENTRY_TOKEN_FILE`, if it is set.
    pub sentry_token_file: Option<String>,
    pub key: Key,
    /// Where certificate and key are written to as well, for other programs.
    pub directory: Option<PathBuf>,
}

impl Identity {
    /// Waits for trust anchors and for sentry. Certificate and trust anchors are
    /// kept up to date for as long as the process lives. Without a client of the
    /// API server the trust anchors are in their file.
    pub async fn start(
        self,
        client: Option<&Client>,
        process: &Process,
    ) -> anyhow::Result<(Security, TrustAnchors)> {
        let file = self.trust_anchors_file;
        let source = match client {
            Some(client) => trust::source(client, &self.namespace, &file).await,
            None => anchors::Source::File(file.clone()),
        };
        let is_mounted = matches!(source, anchors::Source::File(_));
        let options = Options {
            app_id: self.app_id.to_owned(),
            namespace: self.namespace.clone(),
            control_plane: ControlPlane {
                trust_domain: self.trust_domain,
                namespace: self.namespace,
            },
            anchors: source,
            sentry_address: self.sentry_address,
            token: token::Source::choose(client.is_some(), self.sentry_token_file)?,
            key: self.key,
            jwt_audiences: Vec::new(),
            directory: self.directory,
        };
        let (security, upkeep) = Security::start(options).await?;
        process.spawn("identity", |stopping| upkeep.run(stopping));
        let anchors = security
            .anchors()
            .context("an identity without trust anchors")?
            .clone();
        if !is_mounted {
            process.spawn("anchors", |stopping| {
                trust::follow(anchors.clone(), file, stopping)
            });
        }
        Ok((security, anchors))
    }
}
