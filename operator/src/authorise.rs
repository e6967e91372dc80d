//! The identity of a caller: a sidecar gets what is in its own namespace.

use outrider_security::Peer;
use tonic::{Extensions, Status};

/// The caller, proved by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub namespace: String,
    pub app_id: String,
}

/// The caller, if it may see `namespace`.
pub fn caller(extensions: &Extensions, namespace: &str) -> Result<Caller, Status> {
    let id = extensions.get::<Peer>().and_then(|peer| peer.id.as_ref());
    let Some(workload) = id.and_then(|id| id.as_workload()) else {
        return Err(Status::permission_denied("failed to determine identity"));
    };
    if namespace.is_empty() || workload.namespace != namespace {
        return Err(Status::permission_denied(format!(
            "identity does not match requested namespace exp={namespace} got={}",
            workload.namespace
        )));
    }
    Ok(Caller {
        namespace: workload.namespace.to_owned(),
        app_id: workload.app_id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use outrider_security::{SpiffeId, TrustDomain};

    use super::*;

    #[test]
    fn a_caller_may_see_its_own_namespace_only() {
        let id = SpiffeId::workload(&TrustDomain::public(), "default", "app").unwrap();
        let mut extensions = Extensions::default();
        let status = caller(&extensions, "default").unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (
                tonic::Code::PermissionDenied,
                "failed to determine identity"
            )
        );
        extensions.insert(Peer {
            address: None,
            id: Some(id),
        });
        let allowed = caller(&extensions, "default").unwrap();
        assert_eq!(
            (allowed.namespace.as_str(), allowed.app_id.as_str()),
            ("default", "app")
        );
        for namespace in ["other", ""] {
            let status = caller(&extensions, namespace).unwrap_err();
            let text =
                format!("identity does not match requested namespace exp={namespace} got=default");
            assert_eq!(
                (status.code(), status.message()),
                (tonic::Code::PermissionDenied, text.as_str())
            );
        }
    }
}
