//! What a timer is to do, as applications write it.
//! <https://docs.dapr.io/developing-applications/building-blocks/actors/howto-actors/#actor-timers>

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use outrider_kit::period::{self, Period, PointError};
use outrider_kit::{cron, duration};

/// What an application registers. An empty text is an absent one.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub name: String,
    pub due_time: String,
    pub period: String,
    pub ttl: String,
    pub callback: String,
    /// As JSON.
    pub data: Option<Bytes>,
}

/// A timer, with the texts that it was registered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Timer {
    pub name: Arc<str>,
    pub due_time: String,
    pub period: String,
    pub ttl: String,
    pub callback: String,
    pub data: Option<Bytes>,
    pub(super) due: Timestamp,
    /// None for one tick.
    pub(super) every: Option<Period>,
    /// How many ticks there are; none for no end.
    pub(super) repeats: Option<u64>,
    /// A tick at this time or later does not fire.
    pub(super) end: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("error parsing timer due time: {0}")]
    DueTime(String),
    #[error("invalid timer period: parse error: unsupported duration format: {0}")]
    Period(String),
    #[error("invalid timer period: has zero repetitions")]
    NoRepeats,
    #[error("invalid timer period: {0} would fire without a pause")]
    NoPause(String),
    #[error("error parsing timer TTL: {0}")]
    Ttl(String),
    #[error("timer {key} has already expired: dueTime: {due} TTL: {ttl}")]
    Expired {
        key: String,
        due: String,
        ttl: String,
    },
}

impl Timer {
    /// What a request that comes at `now` means. `key` names the timer in errors.
    pub fn plan(request: Request, key: &str, now: Timestamp) -> Result<Timer, Invalid> {
        let due = match request.due_time.as_str() {
            "" => now,
            text => point(text, now).map_err(Invalid::DueTime)?,
        };
        let (every, repeats) = read_period(&request.period, now)?;
        let mut end = None;
        if !request.ttl.is_empty() {
            let at = point(&request.ttl, due).map_err(Invalid::Ttl)?;
            if now > at || due > at {
                return Err(Invalid::Expired {
                    key: key.to_owned(),
                    due: due.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
                    ttl: request.ttl,
                });
            }
            end = Some(at);
        }
        Ok(Timer {
            name: request.name.into(),
            due_time: request.due_time,
            period: request.period,
            ttl: request.ttl,
            callback: request.callback,
            data: request.data,
            due,
            every,
            repeats,
            end,
        })
    }

    /// The period as it is read back.
    pub fn shown_period(&self) -> String {
        match duration::parse_signed(&self.period).map(u64::try_from) {
            Ok(Ok(nanoseconds)) if nanoseconds > 0 => {
                let period = std::time::Duration::from_nanos(nanoseconds);
                format!("@every {}", duration::format(period))
            }
            _ => self.period.clone(),
        }
    }

    /// The date of the tick after that of `date`.
    pub(super) fn next(&self, date: Timestamp) -> Option<Timestamp> {
        self.every?.after(date)
    }
}

/// The period, if there is one, and how often it is repeated.
fn read_period(text: &str, now: Timestamp) -> Result<(Option<Period>, Option<u64>), Invalid> {
    if text.is_empty() {
        return Ok((None, None));
    }
    let unsupported = || Invalid::Period(text.to_owned());
    let period = match text.starts_with("@every ") {
        false => Period::parse(text).ok_or_else(unsupported)?,
        // As it is read back.
        true => match cron::Schedule::parse(text, jiff::tz::TimeZone::UTC) {
            Ok(cron::Schedule::Every(time)) => Period {
                repeats: -1,
                nanoseconds: i64::try_from(time.as_nanos()).map_err(|_| unsupported())?,
                ..Period::default()
            },
            Err(cron::ParseError::NoDuration(_)) => {
                return Err(Invalid::NoPause(text.to_owned()));
            }
            _ => return Err(unsupported()),
        },
    };
    if period.repeats == 0 {
        return Err(Invalid::NoRepeats);
    }
    let repeats = u64::try_from(period.repeats).ok();
    match period.after(now).ok_or_else(unsupported)? {
        next if next > now => Ok((Some(period), repeats)),
        next if next == now => Ok((None, None)),
        _ => Err(Invalid::NoPause(text.to_owned())),
    }
}

fn point(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    period::point(text, now).map_err(|error| match error {
        PointError::Repeats(_) => "repetitions are not allowed".to_owned(),
        PointError::Format => format!("unsupported time/duration format: {text}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn plan(due_time: &str, period: &str, ttl: &str) -> Result<Timer, String> {
        let request = Request {
            name: "n".to_owned(),
            due_time: due_time.to_owned(),
            period: period.to_owned(),
            ttl: ttl.to_owned(),
            ..Request::default()
        };
        Timer::plan(request, "T||1||n", now()).map_err(|error| error.to_string())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn periods_have_the_documented_forms() {
        let of = |period| {
            let timer = plan("", period, "").unwrap();
            (timer.next(now()), timer.repeats)
        };
        assert_eq!(of("2s"), (Some(at(2)), None));
        assert_eq!(of("@every 2s"), (Some(at(2)), None));
        assert_eq!(of("R5/PT2S"), (Some(at(2)), Some(5)));
        assert_eq!(of("R-1/PT2S"), (Some(at(2)), None));
        assert_eq!(of("P1D"), (Some(at(86_400)), None));
        for once in ["", "0s", "PT0S", "R5/"] {
            assert_eq!(of(once), (None, None), "{once}");
        }
    }

    #[test]
    fn refusals_are_those_of_dapr() {
        let refused = |due, period, ttl| plan(due, period, ttl).unwrap_err();
        assert_eq!(
            refused("x", "", ""),
            "error parsing timer due time: unsupported time/duration format: x"
        );
        assert_eq!(
            refused("R2/PT1S", "", ""),
            "error parsing timer due time: repetitions are not allowed"
        );
        for period in ["R5/5s", "* * * * * *", "@daily", "5"] {
            assert_eq!(
                refused("", period, ""),
                format!("invalid timer period: parse error: unsupported duration format: {period}")
            );
        }
        assert_eq!(
            refused("", "R0/PT1S", ""),
            "invalid timer period: has zero repetitions"
        );
        for period in ["-1s", "PT-1S", "@every 0s", "@every -1s"] {
            assert_eq!(
                refused("", period, ""),
                format!("invalid timer period: {period} would fire without a pause")
            );
        }
        assert_eq!(
            refused("5s", "", "-1s"),
            "timer T||1||n has already expired: dueTime: 2027-01-15 08:00:05 +0000 UTC TTL: -1s"
        );
        assert_eq!(
            refused("", "", "x"),
            "error parsing timer TTL: unsupported time/duration format: x"
        );
    }

    #[test]
    fn a_ttl_counts_from_the_due_time() {
        assert_eq!(plan("5s", "1s", "2s").unwrap().end, Some(at(7)));
        assert_eq!(plan("", "1s", "0s").unwrap().end, Some(at(0)));
    }

    #[test]
    fn a_go_period_is_read_back_as_a_schedule() {
        let shown = |period| plan("", period, "").unwrap().shown_period();
        assert_eq!(shown("10s"), "@every 10s");
        assert_eq!(shown("60s"), "@every 1m0s");
        assert_eq!(shown("R5/PT1S"), "R5/PT1S");
        assert_eq!(shown(""), "");
    }
}
