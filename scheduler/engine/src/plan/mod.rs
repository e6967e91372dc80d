//! Which jobs are accepted, and what is stored of them.

use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp, tz};
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

/// Reads a schedule; its times are UTC unless it says another zone.
pub(crate) fn schedule(text: &str) -> Result<cron::Schedule, Invalid> {
    use cron::ParseError::Zone;
    cron::Schedule::parse_with_seconds(text, tz::TimeZone::UTC).map_err(|error| {
        Invalid::Schedule(match error {
            Zone(zone) => format!("provided bad location {zone}: unknown time zone {zone}"),
            other => other.to_string(),
        })
    })
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

/// RFC 3339, a duration as Go writes it, or an ISO 8601 duration; the last two
/// count from `now`.
fn point(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    if is_rfc3339(text)
        && let Ok(time) = text.parse()
    {
        return Ok(time);
    }
    let later = |nanoseconds| {
        now.checked_add(SignedDuration::from_nanos(nanoseconds))
            .map_err(|_| Invalid::DueTime)
    };
    if let Ok(nanoseconds) = duration::parse_signed(text) {
        return later(nanoseconds);
    }
    let period = Period::parse(text).ok_or(Invalid::DueTime)?;
    if period.repeats > 0 {
        return Err(Invalid::DueTimeRepeats);
    }
    period.after(now).ok_or(Invalid::DueTime)
}

/// `2026-01-02T03:04:05`, a fraction or none, `Z` or an offset.
fn is_rfc3339(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    if bytes.len() <= FORM.len() {
        return false;
    }
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    let (head, mut rest) = bytes.split_at(FORM.len());
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|it| it.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    let zone = match rest {
        [b'Z'] => true,
        [b'+' | b'-', rest @ ..] if rest.len() == 5 => rest.iter().zip(b"00:00").all(fits),
        _ => false,
    };
    zone && head[17..] < b"60"[..] && head.iter().zip(FORM).all(fits)
}

/// An ISO 8601 duration, repeated or not.
#[derive(Debug, Default, PartialEq)]
struct Period {
    /// -1 if nothing is said.
    repeats: i64,
    years: i64,
    months: i64,
    days: i64,
    seconds: i64,
}

impl Period {
    fn parse(text: &str) -> Option<Period> {
        if text.len() < 2 {
            return None;
        }
        let mut period = Period {
            repeats: -1,
            ..Period::default()
        };
        let mut rest = text;
        if let Some(repeated) = text.strip_prefix('R') {
            let (number, period_text) = repeated.split_once('/').unwrap_or((repeated, ""));
            period.repeats = number.parse().ok()?;
            if period_text.is_empty() {
                return Some(period);
            }
            rest = period_text;
        }
        rest = rest.strip_prefix('P')?;
        let mut time = false;
        while !rest.is_empty() {
            if let Some(of_day) = rest.strip_prefix('T') {
                (time, rest) = (true, of_day);
                continue;
            }
            let unit = rest.find(|c: char| c.is_ascii_uppercase())?;
            let number: i64 = rest[..unit].parse().ok()?;
            let scaled = |scale: i64| number.checked_mul(scale);
            let (field, value) = match (&rest[unit..=unit], time) {
                ("Y", false) => (&mut period.years, number),
                ("M", false) => (&mut period.months, number),
                ("W", false) => (&mut period.days, scaled(7)?),
                ("D", false) => (&mut period.days, number),
                ("H", true) => (&mut period.seconds, scaled(3600)?),
                ("M", true) => (&mut period.seconds, scaled(60)?),
                ("S", true) => (&mut period.seconds, number),
                _ => return None,
            };
            *field = field.checked_add(value)?;
            rest = &rest[unit + 1..];
        }
        Some(period)
    }

    /// Days that a month does not have run over into the next one.
    fn after(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(tz::TimeZone::UTC);
        let months = self.years.checked_mul(12)?.checked_add(self.months)?;
        let month = i64::from(now.year()) * 12 + i64::from(now.month()) - 1;
        let month = month.checked_add(months)?;
        let year = i16::try_from(month.div_euclid(12)).ok()?;
        let first = Date::new(year, i8::try_from(month.rem_euclid(12)).ok()? + 1, 1).ok()?;
        let days = self.days.checked_add(i64::from(now.day()) - 1)?;
        let date = first.checked_add(Span::new().try_days(days).ok()?).ok()?;
        let time = date.to_datetime(now.time()).to_zoned(tz::TimeZone::UTC);
        let time = time.ok()?.timestamp();
        time.checked_add(SignedDuration::from_secs(self.seconds))
            .ok()
    }
}

#[cfg(test)]
mod tests;
