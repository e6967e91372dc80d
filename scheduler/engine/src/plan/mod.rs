//! Which jobs are accepted, and what is stored of them.

use std::time::Duration;

use jiff::{Timestamp, tz};
use outrider_kit::period::{self, PointError};
use outrider_kit::{cron, duration};
use outrider_proto::stored::v1::failure_policy::Policy;
use outrider_proto::stored::v1::stored_job::Begin;
use outrider_proto::stored::v1::{FailurePolicy, FailurePolicyConstant, Spec, StoredJob};

use crate::timing;

/// Retries of a job that says nothing about failures.
const RETRIES: u32 = 3;
/// How many ticks a job may have to make up when it is created: a schedule that
/// begins long ago would otherwise keep its application busy for days.
const MOST_PAST_TICKS: u32 = 100_000;

/// Why a job is refused. The words are those of every Dapr scheduler where that
/// refuses it too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("job must have either a due time or a schedule")]
    Nothing,
    #[error("job must have a schedule to repeat")]
    RepeatsAlone,
    #[error("defined repeats must be greater than 0")]
    NoRepeats,
    #[error("job must have a schedule to have a ttl")]
    TtlAlone,
    #[error("{0}")]
    Schedule(String),
    #[error("due time format not recognized")]
    DueTime,
    #[error("repeats not supported for due time")]
    DueTimeRepeats,
    #[error("ttl format not recognized")]
    Ttl,
    #[error("ttl must be greater than due time")]
    Expired,
    #[error("timezone is not supported for @every schedules: {0}")]
    ZoneOfPeriod(String),
    #[error("the schedule {0} is never due")]
    Never(String),
    #[error("a failure policy without an interval must have max_retries")]
    NoPause,
    #[error("the due time is more than {MOST_PAST_TICKS} ticks of the schedule ago")]
    TooLongAgo,
}

/// What is stored of `spec` when it is received at `now`. The partition id is
/// any random number.
pub fn plan(mut spec: Spec, partition_id: u64, now: Timestamp) -> Result<StoredJob, Invalid> {
    if spec.due_time.is_none() && spec.schedule.is_none() {
        return Err(Invalid::Nothing);
    }
    if spec.schedule.is_none() && spec.repeats.is_some_and(|it| it > 1) {
        return Err(Invalid::RepeatsAlone);
    }
    if spec.repeats == Some(0) {
        return Err(Invalid::NoRepeats);
    }
    if spec.schedule.is_none() && spec.ttl.is_some() {
        return Err(Invalid::TtlAlone);
    }
    let schedule = spec.schedule.as_deref().map(schedule).transpose()?;
    check_policy(spec.failure_policy.get_or_insert_with(default_policy))?;
    let due = spec.due_time.as_deref().map(|text| point(text, now));
    let due = due.transpose()?;
    let mut expiration = None;
    if let Some(ttl) = &spec.ttl {
        let end = point(ttl, due.unwrap_or(now)).map_err(|_| Invalid::Ttl)?;
        if due.is_some_and(|due| due > end) {
            return Err(Invalid::Expired);
        }
        expiration = Some(end);
    }
    if let Some(schedule) = &schedule {
        let text = spec.schedule.as_deref().unwrap_or_default();
        // Stored ones of that kind go on; new ones would not do what they say.
        if matches!(schedule, cron::Schedule::Every(_)) && !text.starts_with('@') {
            return Err(Invalid::ZoneOfPeriod(text.to_owned()));
        }
        let is_endless = spec.repeats.is_none_or(|most| most > MOST_PAST_TICKS);
        if *schedule == WITHOUT_PAUSE && is_endless {
            return Err(Invalid::Schedule(
                cron::ParseError::NoDuration(text.to_owned()).to_string(),
            ));
        }
        if schedule.next(due.unwrap_or(now)).is_none() {
            return Err(Invalid::Never(text.to_owned()));
        }
        let last = expiration.map_or(now, |end| end.min(now));
        let most = spec.repeats.unwrap_or(u32::MAX);
        if let Some(due) = due
            && most > MOST_PAST_TICKS
            && ticks_between(schedule, due, last) > MOST_PAST_TICKS
        {
            return Err(Invalid::TooLongAgo);
        }
    }
    let begin = match due {
        Some(due) => Begin::DueTime(timing::to_proto(due)),
        None => Begin::Start(timing::to_proto(now)),
    };
    Ok(StoredJob {
        partition_id,
        begin: Some(begin),
        expiration: expiration.map(timing::to_proto),
        job: Some(spec),
    })
}

/// All ticks at once: for jobs that say how many there are.
const WITHOUT_PAUSE: cron::Schedule = cron::Schedule::Every(Duration::ZERO);

/// Reads a schedule; its times are UTC unless it says another zone.
pub(crate) fn schedule(text: &str) -> Result<cron::Schedule, Invalid> {
    use cron::ParseError::{NoDuration, Zone};
    let is_zero = |text: &str| {
        let length = text.strip_prefix("@every ").map(duration::parse_signed);
        length == Some(Ok(0))
    };
    match cron::Schedule::parse_with_seconds(text, tz::TimeZone::UTC) {
        Ok(schedule) => Ok(schedule),
        Err(NoDuration(_)) if is_zero(text) => Ok(WITHOUT_PAUSE),
        Err(Zone(zone)) => {
            let why = format!("provided bad location {zone}: unknown time zone {zone}");
            Err(Invalid::Schedule(why))
        }
        Err(other) => Err(Invalid::Schedule(other.to_string())),
    }
}

fn default_policy() -> FailurePolicy {
    let interval = prost_types::Duration {
        seconds: 1,
        nanos: 0,
    };
    FailurePolicy {
        policy: Some(Policy::Constant(FailurePolicyConstant {
            interval: Some(interval),
            max_retries: Some(RETRIES),
        })),
    }
}

/// Retries without end and without a pause would keep both sides busy for ever.
fn check_policy(policy: &FailurePolicy) -> Result<(), Invalid> {
    match &policy.policy {
        Some(Policy::Constant(constant))
            if constant.max_retries.is_none() && timing::interval(constant).is_zero() =>
        {
            Err(Invalid::NoPause)
        }
        _ => Ok(()),
    }
}

/// How many times are due after `from` up to `to`, counted no further than is
/// of interest.
fn ticks_between(schedule: &cron::Schedule, from: Timestamp, to: Timestamp) -> u32 {
    if let cron::Schedule::Every(period) = schedule {
        let span = to.duration_since(from).as_nanos().max(0);
        let ticks = span / (period.as_nanos() as i128).max(1);
        return u32::try_from(ticks).unwrap_or(u32::MAX);
    }
    // Fields have no more than one time a second.
    let seconds = to.duration_since(from).as_secs();
    if seconds <= i64::from(MOST_PAST_TICKS) {
        return 0;
    }
    let mut ticks = 0;
    let mut last = from;
    while ticks <= MOST_PAST_TICKS
        && let Some(next) = schedule.next(last)
        && next <= to
    {
        (ticks, last) = (ticks + 1, next);
    }
    ticks
}

/// RFC 3339, or a duration that counts from `now`.
fn point(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    match period::point(text, now) {
        Ok(point) => Ok(point),
        Err(PointError::Repeats(period)) if period.repeats > 0 => Err(Invalid::DueTimeRepeats),
        Err(PointError::Repeats(period)) => period.after(now).ok_or(Invalid::DueTime),
        Err(PointError::Format) => Err(Invalid::DueTime),
    }
}

#[cfg(test)]
mod tests;
