//! A reminder as a job of the scheduler, and back.

use std::time::Duration;

use outrider_kit::duration;
use outrider_kit::period::Period;
use outrider_proto::Any;
use outrider_proto::common::v1::JobFailurePolicy;
use outrider_proto::scheduler::v1 as wire;
use outrider_proto::scheduler::v1::job_target_metadata::Type;

use crate::actor::Actor;

/// What an application registers. An empty text is an absent one.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub name: String,
    pub due_time: String,
    pub period: String,
    pub ttl: String,
    pub data: Option<Any>,
    /// Replaces one of the same name.
    pub overwrite: bool,
    pub failure_policy: Option<JobFailurePolicy>,
}

/// A reminder as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Reminder {
    pub name: String,
    pub actor: Actor,
    pub due_time: Option<String>,
    pub period: Option<String>,
    /// Only a date.
    pub ttl: Option<String>,
    pub data: Option<Any>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported period format: {0}")]
pub struct Unsupported(String);

/// The job of a reminder.
pub fn of(request: Request) -> Result<wire::Job, Unsupported> {
    let (schedule, repeats) = schedule(&request.period)?;
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(wire::Job {
        schedule,
        repeats,
        due_time: text(request.due_time),
        ttl: text(request.ttl),
        data: request.data,
        failure_policy: request.failure_policy,
    })
}

/// The schedule of a period, and how often it is repeated.
fn schedule(period: &str) -> Result<(Option<String>, Option<u32>), Unsupported> {
    if period.is_empty() {
        return Ok((None, None));
    }
    let unsupported = || Unsupported(period.to_owned());
    let read = Period::parse(period).ok_or_else(unsupported)?;
    if read.years > 0 || read.months > 0 || read.days > 0 {
        return Err(unsupported());
    }
    let sign = if read.nanoseconds < 0 { "-" } else { "" };
    let length = Duration::from_nanos(read.nanoseconds.unsigned_abs());
    let schedule = format!("@every {sign}{}", duration::format(length));
    // More than the scheduler can count are no limit to anybody.
    let repeats = match read.repeats {
        ..=0 => None,
        repeats => Some(u32::try_from(repeats).unwrap_or(u32::MAX)),
    };
    Ok((Some(schedule), repeats))
}

/// Whose job it is: that of an actor, or of all actors of a type for an empty id.
pub fn metadata(app_id: &str, namespace: &str, kind: &str, id: &str) -> wire::JobMetadata {
    let target = Type::Actor(wire::TargetActorReminder {
        id: id.to_owned(),
        r#type: kind.to_owned(),
    });
    wire::JobMetadata {
        app_id: app_id.to_owned(),
        namespace: namespace.to_owned(),
        target: Some(wire::JobTargetMetadata {
            r#type: Some(target),
        }),
        concurrency_key: None,
    }
}

/// The actor that a job is for; none if it is of another kind, or of nobody.
pub fn actor(metadata: &wire::JobMetadata) -> Option<Actor> {
    match metadata.target.as_ref()?.r#type.as_ref()? {
        Type::Actor(actor) if !actor.r#type.is_empty() && !actor.id.is_empty() => {
            Some(Actor::new(actor.r#type.as_str(), actor.id.as_str()))
        }
        _ => None,
    }
}

/// The reminder of a job.
pub fn reminder(name: String, actor: Actor, job: wire::Job) -> Reminder {
    let is_date = |ttl: &String| ttl.parse::<jiff::Timestamp>().is_ok();
    Reminder {
        name,
        actor,
        due_time: job.due_time,
        period: job.schedule,
        ttl: job.ttl.filter(is_date),
        data: job.data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_become_schedules_as_go_writes_them() {
        let of = |period| schedule(period).unwrap();
        let every = |text: &str| Some(format!("@every {text}"));
        assert_eq!(of(""), (None, None));
        assert_eq!(of("1s"), (every("1s"), None));
        assert_eq!(of("PT24H"), (every("24h0m0s"), None));
        assert_eq!(of("R5/PT1S"), (every("1s"), Some(5)));
        for unlimited in ["R0/PT1S", "R-1/PT1S"] {
            assert_eq!(of(unlimited), (every("1s"), None));
        }
        // The scheduler refuses them, in its own words.
        assert_eq!(of("R5/"), (every("0s"), Some(5)));
        assert_eq!(of("-1s"), (every("-1s"), None));
        for text in [
            "P1D",
            "P1W",
            "P1M",
            "* * * * * *",
            "@every 1s",
            "@daily",
            "5",
        ] {
            let error = schedule(text).unwrap_err().to_string();
            assert_eq!(error, format!("unsupported period format: {text}"));
        }
    }

    #[test]
    fn only_dates_are_shown_as_ttl() {
        let ttl = |text: &str| {
            let job = wire::Job {
                ttl: Some(text.to_owned()),
                ..wire::Job::default()
            };
            reminder("r".to_owned(), Actor::new("t", "1"), job).ttl
        };
        assert_eq!(ttl("10s"), None);
        let date = "2026-12-01T00:00:00Z";
        assert_eq!(ttl(date).as_deref(), Some(date));
    }

    #[test]
    fn a_job_of_nobody_is_no_reminder() {
        let of = |kind, id| actor(&metadata("a", "ns", kind, id));
        assert_eq!(of("t", "1"), Some(Actor::new("t", "1")));
        assert_eq!(of("", "1"), None);
        assert_eq!(of("t", ""), None);
        assert_eq!(actor(&wire::JobMetadata::default()), None);
    }
}
