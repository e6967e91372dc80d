//! Whose a job is. Names of actors may have the bars that separate them in the
//! names of jobs: only what is stored tells.

use outrider_proto::etcd::mvccpb::KeyValue;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_proto::scheduler::v1::{JobMetadata, TargetActorReminder};

use super::convert;

fn actor(metadata: &JobMetadata) -> Option<&TargetActorReminder> {
    match metadata.target.as_ref()?.r#type.as_ref()? {
        Type::Actor(actor) => Some(actor),
        Type::Job(_) => None,
    }
}

/// Whether another actor's job may have the same whole name.
pub fn is_ambiguous(metadata: &JobMetadata, name: &str) -> bool {
    actor(metadata).is_some_and(|actor| {
        [&actor.r#type, &actor.id, name]
            .iter()
            .any(|text| text.contains('|'))
    })
}

/// Whether an actor is asked about, not all of a type.
pub fn has_id(metadata: &JobMetadata) -> bool {
    actor(metadata).is_some_and(|actor| !actor.id.is_empty())
}

/// Whether a stored job is of the one whom `asked` names. What cannot be read is
/// of whom its name says.
pub fn has(asked: &JobMetadata, kv: &KeyValue) -> bool {
    compare(asked, kv, |asked, stored| asked == stored)
}

/// The same where an actor without an id stands for all of its type, and with
/// `ids` an id for all that begin with it.
pub fn is_meant(asked: &JobMetadata, kv: &KeyValue, ids: bool) -> bool {
    compare(asked, kv, |asked, stored| {
        asked.r#type == stored.r#type
            && match ids || asked.id.is_empty() {
                true => stored.id.starts_with(&asked.id),
                false => stored.id == asked.id,
            }
    })
}

fn compare(
    asked: &JobMetadata,
    kv: &KeyValue,
    is_same: impl Fn(&TargetActorReminder, &TargetActorReminder) -> bool,
) -> bool {
    let stored = convert::from_stored(kv);
    match (actor(asked), &stored) {
        (Some(asked), Ok((_, stored, _))) => {
            actor(stored).is_none_or(|stored| is_same(asked, stored))
        }
        _ => true,
    }
}
