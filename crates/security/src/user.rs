//! In Kubernetes no service of ours runs as root.

/// Refuses effective user 0 in Kubernetes. `skip` is whether
/// `DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK` is `true`.
pub fn refuse_root(kubernetes: bool, skip: bool) -> Result<(), Root> {
    if !kubernetes {
        return Ok(());
    }
    if skip {
        tracing::info!(target: "dapr.runtime.security", "Skipping container UID/GID check due to env override.");
        return Ok(());
    }
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Err(Root);
    }
    tracing::info!(target: "dapr.runtime.security", "Running in Kubernetes environment as user {}", user.as_raw());
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "current user UID(0) is root. Dapr must be run as a non-root user in Kubernetes environments. To override this check, set the environment variable 'DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK=true'"
)]
pub struct Root;
