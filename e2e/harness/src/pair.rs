//! Two sidecars that find each other.

use anyhow::Result;
use outrider_proto::common::v1::http_extension::Verb;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest};
use tempfile::TempDir;

use crate::{Builder, Daprd, Sentry};

/// The sidecars `caller` and `called`.
pub struct Pair {
    pub caller: Daprd,
    pub called: Daprd,
    _names: TempDir,
}

impl Pair {
    /// `called` completes the builder of that sidecar.
    pub async fn start(called: impl FnOnce(Builder) -> Builder) -> Result<Pair> {
        Pair::both(|caller| caller, called).await
    }

    /// The same where `caller` has settings of its own.
    pub async fn both(
        caller: impl FnOnce(Builder) -> Builder,
        called: impl FnOnce(Builder) -> Builder,
    ) -> Result<Pair> {
        Pair::run(|builder| Ok(caller(builder)), |builder| Ok(called(builder))).await
    }

    /// The same with mTLS between them.
    pub async fn mtls(sentry: &Sentry, called: impl FnOnce(Builder) -> Builder) -> Result<Pair> {
        Pair::run(
            |builder| builder.sentry(sentry),
            |builder| called(builder).sentry(sentry),
        )
        .await
    }

    async fn run(
        caller: impl FnOnce(Builder) -> Result<Builder>,
        called: impl FnOnce(Builder) -> Result<Builder>,
    ) -> Result<Pair> {
        let names = tempfile::tempdir()?;
        let named = |app_id: &str| Daprd::builder().app_id(app_id).names(names.path());
        let called = called(named("called"))?.spawn()?;
        let caller = caller(named("caller"))?.spawn()?;
        caller.ready().await?;
        called.ready().await?;
        Ok(Pair {
            caller,
            called,
            _names: names,
        })
    }
}

/// A GET of `method`.
pub fn invocation(method: &str) -> InvokeRequest {
    InvokeRequest {
        method: method.to_owned(),
        http_extension: Some(HttpExtension {
            verb: Verb::Get.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
