//! Names of jobs, and the keys under which the store has them.

use outrider_kit::quote;
use outrider_proto::scheduler::v1::JobMetadata;
use outrider_proto::scheduler::v1::job_target_metadata::Type;

/// Before the name of a job.
pub const JOBS: &str = "dapr/jobs/";
/// Before the name of the job that a counter is of.
pub const COUNTERS: &str = "dapr/counters/";
/// Before the id of a member.
pub const LEADERSHIP: &str = "dapr/leadership/";

/// In bytes.
const LONGEST: usize = 512;
const SEPARATOR: &str = "||";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unknown job type: <nil>")]
    NoTarget,
    #[error("job name cannot be empty")]
    Empty,
    #[error("job name is invalid {}: {why}", quote::go(.name))]
    Name { name: String, why: &'static str },
}

fn join(parts: &[&str]) -> String {
    parts.join(SEPARATOR)
}

/// What the names of all jobs with this target begin with.
pub fn prefix(metadata: &JobMetadata) -> Result<String, Error> {
    let target = metadata.target.as_ref().and_then(|it| it.r#type.as_ref());
    Ok(match target.ok_or(Error::NoTarget)? {
        Type::Job(_) => join(&["app", &metadata.namespace, &metadata.app_id, ""]),
        Type::Actor(actor) => join(&[
            "actorreminder",
            &metadata.namespace,
            &actor.r#type,
            &actor.id,
            "",
        ]),
    })
}

/// The same where an actor without an id stands for all actors of its type.
/// With `ids` the id of an actor or application is the beginning of the ids that
/// are meant; a type is always meant whole, or one type would reach others.
pub fn scope(metadata: &JobMetadata, ids: bool) -> Result<String, Error> {
    let target = metadata.target.as_ref().and_then(|it| it.r#type.as_ref());
    match target {
        Some(Type::Actor(actor)) if actor.id.is_empty() => Ok(join(&[
            "actorreminder",
            &metadata.namespace,
            &actor.r#type,
            "",
        ])),
        Some(Type::Actor(actor)) if ids => Ok(join(&[
            "actorreminder",
            &metadata.namespace,
            &actor.r#type,
            &actor.id,
        ])),
        Some(Type::Job(_)) if ids => Ok(join(&["app", &metadata.namespace, &metadata.app_id])),
        _ => prefix(metadata),
    }
}

/// What the names of all jobs of a namespace begin with.
pub fn namespace(namespace: &str) -> [String; 2] {
    ["actorreminder", "app"].map(|kind| join(&[kind, namespace, ""]))
}

/// The name of a job, checked.
pub fn name(metadata: &JobMetadata, name: &str) -> Result<String, Error> {
    let name = prefix(metadata)? + name;
    check(&name)?;
    Ok(name)
}

fn check(name: &str) -> Result<(), Error> {
    let invalid = |why| {
        Err(Error::Name {
            name: name.to_owned(),
            why,
        })
    };
    if name.is_empty() {
        return Err(Error::Empty);
    }
    if name.len() > LONGEST {
        return invalid("must be at most 512 characters");
    }
    if name.contains(['/', '\\', '#', '?']) {
        return invalid("must not contain '/', '\\', '#' or '?'");
    }
    if name.contains(char::is_control) {
        return invalid("must not contain control characters");
    }
    if matches!(name, "." | "..") {
        return invalid("must not be a path traversal sequence");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use outrider_proto::scheduler::v1::{JobTargetMetadata, TargetActorReminder, TargetJob};

    use super::*;

    fn metadata(target: Option<Type>) -> JobMetadata {
        JobMetadata {
            app_id: "app1".into(),
            namespace: "ns".into(),
            target: Some(JobTargetMetadata { r#type: target }),
            concurrency_key: None,
        }
    }

    fn actor(r#type: &str, id: &str) -> JobMetadata {
        let (id, r#type) = (id.into(), r#type.into());
        metadata(Some(Type::Actor(TargetActorReminder { id, r#type })))
    }

    #[test]
    fn names_are_those_of_every_dapr_scheduler() {
        let job = metadata(Some(Type::Job(TargetJob {})));
        assert_eq!(name(&job, "j").unwrap(), "app||ns||app1||j");
        let reminder = actor("t", "1");
        let wanted = "actorreminder||ns||t||1||r";
        assert_eq!(name(&reminder, "r").unwrap(), wanted);
        assert_eq!(name(&metadata(None), "r"), Err(Error::NoTarget));
    }

    #[test]
    fn an_id_prefix_stays_within_its_type() {
        let scope = |r#type, id, ids| scope(&actor(r#type, id), ids).unwrap();
        assert_eq!(scope("dapr", "", true), "actorreminder||ns||dapr||");
        assert_eq!(scope("t", "a", true), "actorreminder||ns||t||a");
        assert_eq!(scope("t", "a", false), "actorreminder||ns||t||a||");
        let job = metadata(Some(Type::Job(TargetJob {})));
        assert_eq!(super::scope(&job, true).unwrap(), "app||ns||app1");
        assert_eq!(super::scope(&job, false).unwrap(), "app||ns||app1||");
    }

    #[test]
    fn names_that_could_be_taken_for_paths_are_refused() {
        let job = metadata(Some(Type::Job(TargetJob {})));
        for text in ["a/b", "a\\b", "a#", "a?"] {
            let error = name(&job, text).unwrap_err().to_string();
            assert!(error.ends_with("must not contain '/', '\\', '#' or '?'"));
        }
        for text in ["a\n", "\u{7f}", "\u{85}"] {
            let error = name(&job, text).unwrap_err().to_string();
            assert!(error.ends_with("must not contain control characters"));
        }
        let long = name(&job, &"x".repeat(500)).unwrap_err().to_string();
        assert!(long.ends_with("must be at most 512 characters"), "{long}");
        for text in ["", ".", "..", "a||b", "\u{3ba} \u{3bb}"] {
            assert!(name(&job, text).is_ok(), "{text}");
        }
    }
}
