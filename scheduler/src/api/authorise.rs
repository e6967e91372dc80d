//! Who may do what.

use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_proto::scheduler::v1::{JobMetadata, WatchJobsRequestInitial};
use outrider_security::Peer;
use tonic::Status;

/// What the names of results of activities begin with.
const RESULT: &str = "activity-result-";

/// The caller must be the application that the request is about.
pub fn metadata(mtls: bool, peer: Option<&Peer>, metadata: &JobMetadata) -> Result<(), Status> {
    caller(mtls, peer, &metadata.namespace, &metadata.app_id)
}

fn caller(mtls: bool, peer: Option<&Peer>, namespace: &str, app_id: &str) -> Result<(), Status> {
    if namespace.is_empty() || app_id.is_empty() {
        return Err(Status::invalid_argument(
            "missing namespace or appID in request",
        ));
    }
    if !mtls {
        return Ok(());
    }
    let id = peer.and_then(|peer| peer.id.as_ref());
    let id = id.ok_or_else(|| Status::unauthenticated("failed to get identity from context"))?;
    if id.namespace() != namespace || id.app_id() != app_id {
        return Err(Status::permission_denied("identity does not match request"));
    }
    Ok(())
}

/// Types of actors that belong to the workflows of one application are for that
/// application alone. `created` is the name of a job that is created without
/// overwriting one: the result of an activity may be sent to the workflow of
/// another application that way.
pub fn target(metadata: &JobMetadata, created: Option<&str>) -> Result<(), Status> {
    let target = metadata.target.as_ref().and_then(|it| it.r#type.as_ref());
    let Some(Type::Actor(actor)) = target else {
        return Ok(());
    };
    if created.is_some_and(|name| is_result_for_other(metadata, name)) {
        return Ok(());
    }
    actor_type(&actor.r#type, &metadata.namespace, &metadata.app_id)
}

fn actor_type(r#type: &str, namespace: &str, app_id: &str) -> Result<(), Status> {
    let reserved = internal(r#type).is_some();
    let own = format!("dapr.internal.{namespace}.{app_id}.");
    if reserved && !r#type.starts_with(&own) {
        return Err(Status::permission_denied(format!(
            "entity {type} is not allowed for app ID {app_id} in namespace {namespace}"
        )));
    }
    Ok(())
}

/// What follows `dapr.internal`.
fn internal(r#type: &str) -> Option<&str> {
    let rest = r#type.strip_prefix("dapr.internal")?;
    (rest.is_empty() || rest.starts_with('.')).then_some(rest)
}

/// Whether this is about jobs of an application, and not of actors.
pub fn is_of_app(metadata: &JobMetadata) -> bool {
    let target = metadata.target.as_ref().and_then(|it| it.r#type.as_ref());
    matches!(target, Some(Type::Job(_)))
}

/// Whether this is the result of an activity for a workflow of another
/// application in the same namespace.
pub fn is_result_for_other(metadata: &JobMetadata, name: &str) -> bool {
    let target = metadata.target.as_ref().and_then(|it| it.r#type.as_ref());
    let Some(Type::Actor(actor)) = target else {
        return false;
    };
    let in_namespace = format!("dapr.internal.{}.", metadata.namespace);
    let own = format!("{in_namespace}{}.", metadata.app_id);
    name.starts_with(RESULT)
        && actor.r#type.starts_with(&in_namespace)
        && actor.r#type.ends_with(".workflow")
        && !actor.r#type.starts_with(&own)
}

/// The same for a stream of jobs: nobody hosts actors of another's workflows.
pub fn watch(
    mtls: bool,
    peer: Option<&Peer>,
    initial: &WatchJobsRequestInitial,
) -> Result<(), Status> {
    caller(mtls, peer, &initial.namespace, &initial.app_id)?;
    let mut types = initial.actor_types.iter();
    types.try_for_each(|it| actor_type(it, &initial.namespace, &initial.app_id))
}

#[cfg(test)]
mod tests {
    use outrider_proto::scheduler::v1::{JobTargetMetadata, TargetActorReminder};
    use tonic::Code;

    use super::*;

    fn reminder(app_id: &str, r#type: &str) -> JobMetadata {
        let target = Type::Actor(TargetActorReminder {
            id: "1".to_owned(),
            r#type: r#type.to_owned(),
        });
        JobMetadata {
            app_id: app_id.to_owned(),
            namespace: "default".to_owned(),
            target: Some(JobTargetMetadata {
                r#type: Some(target),
            }),
            concurrency_key: None,
        }
    }

    #[test]
    fn actors_of_another_applications_workflows_are_out_of_reach() {
        let of = |app, r#type| target(&reminder(app, r#type), Some("r"));
        for allowed in [
            of("a", "dapr.internal.default.a.workflow"),
            of("a", "mytype"),
            of("a", "dapr.internals"),
        ] {
            assert!(allowed.is_ok());
        }
        for r#type in [
            "dapr.internal.default.b.workflow",
            "dapr.internal.other.a.workflow",
            "dapr.internal.default.a",
            "dapr.internal",
        ] {
            let refused = of("a", r#type).unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            let wanted = format!("entity {type} is not allowed for app ID a in namespace default");
            assert_eq!(refused.message(), wanted);
        }
    }

    #[test]
    fn a_result_may_be_created_for_another_workflow_and_nothing_else() {
        let other = reminder("a", "dapr.internal.default.b.workflow");
        assert!(target(&other, Some("activity-result-1")).is_ok());
        assert!(target(&other, None).is_err(), "overwrite, get, delete");
        assert!(target(&other, Some("start-1")).is_err());
        let activity = reminder("a", "dapr.internal.default.b.activity");
        assert!(target(&activity, Some("activity-result-1")).is_err());
    }

    #[test]
    fn without_mtls_only_emptiness_counts() {
        let metadata_of = |app| reminder(app, "t");
        assert!(metadata(false, None, &metadata_of("a")).is_ok());
        let empty = metadata(false, None, &metadata_of("")).unwrap_err();
        assert_eq!(empty.message(), "missing namespace or appID in request");
        let nobody = metadata(true, None, &metadata_of("a")).unwrap_err();
        assert_eq!(nobody.code(), Code::Unauthenticated);
        let peer = Peer {
            address: None,
            id: Some("spiffe://td/ns/default/b".parse().unwrap()),
        };
        let other = metadata(true, Some(&peer), &metadata_of("a")).unwrap_err();
        assert_eq!(other.message(), "identity does not match request");
        assert!(metadata(true, Some(&peer), &metadata_of("b")).is_ok());
    }
}
