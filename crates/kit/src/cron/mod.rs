//! Schedules: `0 30 3 * * *`, `*/5 * * * MON-FRI`, `@hourly`, `@every 1h30m`.
//! Five fields, or six with seconds before them, as
//! <https://pkg.go.dev/github.com/robfig/cron/v3> describes them.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use crate::duration;

/// How far ahead a time is looked for, in years.
const YEARS_AHEAD: i16 = 5;

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is nothing.
    #[error("empty spec string")]
    Empty,
    /// The machine does not know this time zone.
    #[error("provided bad location {0}")]
    Zone(String),
    /// It has more fields or fewer.
    #[error("expected {wanted} fields, found {count}: [{fields}]")]
    Fields {
        /// How many there should be.
        wanted: &'static str,
        /// How many there are.
        count: usize,
        /// What they are.
        fields: String,
    },
    /// A word after `@` that is none.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// What follows `@every` is no duration.
    #[error("failed to parse duration {text}: {cause}")]
    Duration {
        /// The whole text.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// What follows `@every` is no time that can pass.
    #[error("the duration of {0} must be above zero")]
    NoDuration(String),
    /// A part of a field is no number and no name.
    #[error("failed to parse int from {0}")]
    Number(String),
    /// `1-2-3`.
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    /// `1/2/3`.
    #[error("too many slashes: {0}")]
    Slashes(String),
    /// The first number of a range is too small.
    #[error("beginning of range ({start}) below minimum ({least}): {text}")]
    Below {
        /// The number.
        start: u32,
        /// The smallest that there can be.
        least: u32,
        /// The range.
        text: String,
    },
    /// The last number of a range is too large.
    #[error("end of range ({end}) above maximum ({most}): {text}")]
    Above {
        /// The number.
        end: u32,
        /// The largest that there can be.
        most: u32,
        /// The range.
        text: String,
    },
    /// `5-3`.
    #[error("beginning of range ({start}) beyond end of range ({end}): {text}")]
    Reversed {
        /// The first number.
        start: u32,
        /// The last one.
        end: u32,
        /// The range.
        text: String,
    },
    /// `*/0`.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    /// A field of commas only.
    #[error("a field has no values: {0}")]
    NoValues(String),
}

/// When something is due, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Once every so often, from now on.
    Every(Duration),
    /// At the times that fit.
    Times(Box<Times>),
}

/// What times have to look like, in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    zone: TimeZone,
}

/// The numbers that a part of a time may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// One bit for each.
    numbers: u64,
    /// Whether any will do, so that the other of the two kinds of days decides.
    any: bool,
}

/// What a field may hold.
struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const SECONDS: Bounds = Bounds {
    least: 0,
    most: 59,
    names: &[],
};
const MINUTES: Bounds = SECONDS;
const HOURS: Bounds = Bounds {
    least: 0,
    most: 23,
    names: &[],
};
const DAYS: Bounds = Bounds {
    least: 1,
    most: 31,
    names: &[],
};
const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Bounds = Bounds {
    least: 0,
    most: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads a schedule. Its times are of the zone that it begins with
    /// (`TZ=Asia/Tokyo ..`), or else of `zone`.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Schedule, ParseError> {
        Self::read(text, zone, "5 to 6")
    }

    /// The same for a text that must have seconds, where it has fields at all.
    pub fn parse_with_seconds(text: &str, zone: TimeZone) -> Result<Schedule, ParseError> {
        Self::read(text, zone, "exactly 6")
    }

    fn read(text: &str, zone: TimeZone, wanted: &'static str) -> Result<Schedule, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        let named = text
            .strip_prefix("TZ=")
            .or_else(|| text.strip_prefix("CRON_TZ="));
        let (zone, text) = match named {
            None => (zone, text),
            Some(rest) => {
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (named_zone(name)?, rest.trim())
            }
        };
        if text.starts_with('@') {
            return descriptor(text, zone);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = match *fields.as_slice() {
            [minute, hour, day, month, weekday] if wanted != "exactly 6" => {
                ["0", minute, hour, day, month, weekday]
            }
            [second, minute, hour, day, month, weekday] => {
                [second, minute, hour, day, month, weekday]
            }
            _ => {
                return Err(ParseError::Fields {
                    wanted,
                    count: fields.len(),
                    fields: fields.join(" "),
                });
            }
        };
        Ok(Schedule::Times(Box::new(Times {
            second: Field::parse(second, &SECONDS)?,
            minute: Field::parse(minute, &MINUTES)?,
            hour: Field::parse(hour, &HOURS)?,
            day: Field::parse(day, &DAYS)?,
            month: Field::parse(month, &MONTHS)?,
            weekday: Field::parse(weekday, &WEEKDAYS)?,
            zone,
        })))
    }

    /// The first time that is due after `now`; none if there is none within
    /// five years.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Every(time) => now.checked_add(*time).ok(),
            Schedule::Times(times) => times.next(now),
        }
    }
}

fn named_zone(name: &str) -> Result<TimeZone, ParseError> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        "Local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).map_err(|_| ParseError::Zone(name.to_owned())),
    }
}

fn descriptor(text: &str, zone: TimeZone) -> Result<Schedule, ParseError> {
    if let Some(time) = text.strip_prefix("@every ") {
        let nanoseconds = duration::parse_signed(time).map_err(|cause| ParseError::Duration {
            text: text.to_owned(),
            cause: cause.to_string(),
        })?;
        return match u64::try_from(nanoseconds) {
            Ok(nanoseconds) if nanoseconds > 0 => {
                Ok(Schedule::Every(Duration::from_nanos(nanoseconds)))
            }
            _ => Err(ParseError::NoDuration(text.to_owned())),
        };
    }
    let same = match text {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        other => return Err(ParseError::Descriptor(other.to_owned())),
    };
    Schedule::parse(same, zone)
}

impl Field {
    /// Ranges, separated by commas.
    fn parse(text: &str, bounds: &Bounds) -> Result<Field, ParseError> {
        let mut field = Field {
            numbers: 0,
            any: false,
        };
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let Field { numbers, any } = Field::range(range, bounds)?;
            field.numbers |= numbers;
            field.any |= any;
        }
        match field.numbers {
            0 => Err(ParseError::NoValues(text.to_owned())),
            _ => Ok(field),
        }
    }

    /// `5`, `1-5`, `*`, `?`, each with a step such as `/2` behind it or not.
    fn range(text: &str, bounds: &Bounds) -> Result<Field, ParseError> {
        let mut parts = text.split('/');
        let (range, step) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() {
            return Err(ParseError::Slashes(text.to_owned()));
        }
        let mut ends = range.split('-');
        let (first, last) = (ends.next().unwrap_or_default(), ends.next());
        let any = matches!(first, "*" | "?");
        let (start, mut end) = match (any, last) {
            (true, _) => (bounds.least, bounds.most),
            (false, None) => {
                let only = number(first, bounds.names)?;
                (only, only)
            }
            (false, Some(last)) => {
                let start = number(first, bounds.names)?;
                (start, number(last, bounds.names)?)
            }
        };
        if !any && ends.next().is_some() {
            return Err(ParseError::Hyphens(text.to_owned()));
        }
        let stride = match step {
            None => 1,
            Some(step) => number(step, &[])?,
        };
        // `5/2` goes on to the end.
        if let (Some(_), None) = (step, last) {
            end = bounds.most;
        }
        let text = || text.to_owned();
        if start < bounds.least {
            let least = bounds.least;
            return Err(ParseError::Below {
                start,
                least,
                text: text(),
            });
        }
        if end > bounds.most {
            let most = bounds.most;
            return Err(ParseError::Above {
                end,
                most,
                text: text(),
            });
        }
        if start > end {
            return Err(ParseError::Reversed {
                start,
                end,
                text: text(),
            });
        }
        if stride == 0 {
            return Err(ParseError::Step(text()));
        }
        let fits = |number: &u32| (number - start).is_multiple_of(stride);
        let numbers = (start..=end).filter(fits).map(|number| 1 << number);
        Ok(Field {
            numbers: numbers.fold(0, |all, bit: u64| all | bit),
            any: any && stride == 1,
        })
    }

    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.numbers & (1 << number) != 0)
    }
}

/// A number, or a name in any case.
fn number(text: &str, names: &[&str]) -> Result<u32, ParseError> {
    // Months count from one, days of the week from zero.
    let first = u32::from(names.len() == 12);
    let named = names.iter().zip(first..);
    let mut named = named.filter(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, number)) = named.next() {
        return Ok(number);
    }
    text.parse()
        .map_err(|_| ParseError::Number(text.to_owned()))
}

impl Times {
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let first = Timestamp::from_second(now.as_second().checked_add(1)?).ok()?;
        let mut time = first.to_zoned(self.zone.clone());
        let last_year = time.year().saturating_add(YEARS_AHEAD);
        while time.year() <= last_year {
            time = if !self.month.has(time.month()) {
                let first = time.date().first_of_month();
                start_of(first.checked_add(1.month()).ok()?, &self.zone)?
            } else if !self.has_day(time.date()) {
                start_of(time.date().tomorrow().ok()?, &self.zone)?
            } else if !self.hour.has(time.hour()) {
                let past = i64::from(time.minute()) * 60 + i64::from(time.second());
                later(&time, 3600 - past)?
            } else if !self.minute.has(time.minute()) {
                later(&time, 60 - i64::from(time.second()))?
            } else if !self.second.has(time.second()) {
                later(&time, 1)?
            } else {
                return Some(time.timestamp());
            };
        }
        None
    }

    /// Where both kinds of days are given, one of the two is enough.
    fn has_day(&self, date: Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        if self.day.any || self.weekday.any {
            day && weekday
        } else {
            day || weekday
        }
    }
}

/// As many seconds later, whatever clocks on walls do meanwhile.
fn later(time: &Zoned, seconds: i64) -> Option<Zoned> {
    time.checked_add(seconds.seconds()).ok()
}

/// The first instant of a day: not every day begins at midnight.
fn start_of(date: Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_zoned(zone.clone()).ok()?.start_of_day().ok()
}

#[cfg(test)]
mod tests;
