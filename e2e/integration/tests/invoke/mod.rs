mod bounds;
mod bytes;
mod external;
mod grpc;
mod http;
mod identity;
mod stream;

use anyhow::Result;
use outrider_harness::{Builder, Daprd};
use tempfile::TempDir;

/// Two sidecars that find each other: `caller`, and `called` which `build`
/// finishes.
pub struct Pair {
    pub caller: Daprd,
    pub called: Daprd,
    _names: TempDir,
}

impl Pair {
    pub async fn start(build: impl FnOnce(Builder) -> Builder) -> Result<Pair> {
        Pair::both(|caller| caller, build).await
    }

    /// The same where `caller` is not a plain one.
    pub async fn both(
        caller: impl FnOnce(Builder) -> Builder,
        called: impl FnOnce(Builder) -> Builder,
    ) -> Result<Pair> {
        let names = tempfile::tempdir()?;
        let named = |app_id: &str| Daprd::builder().app_id(app_id).names(names.path());
        let called = called(named("called")).spawn()?;
        let caller = caller(named("caller")).spawn()?;
        caller.ready().await?;
        called.ready().await?;
        Ok(Pair {
            caller,
            called,
            _names: names,
        })
    }
}
