//! Periods and points in time as users write them: ISO 8601 durations, repeated
//! or not, durations as Go writes them, and dates as RFC 3339 has them.

use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp, tz};

use crate::duration;

const SECOND: i64 = 1_000_000_000;

/// A length of time of which years, months and days depend on the calendar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// -1 if nothing is said.
    pub repeats: i64,
    /// Of the calendar.
    pub years: i64,
    /// Of the calendar.
    pub months: i64,
    /// Of the calendar.
    pub days: i64,
    /// Of the clock.
    pub nanoseconds: i64,
}

/// Why a text is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointError {
    /// It is a period that says how often it is repeated.
    Repeats(Period),
    /// It is nothing that is known.
    Format,
}

impl Period {
    /// Reads an ISO 8601 duration (`R5/PT1S`) or one as Go writes it (`1m30s`).
    pub fn parse(text: &str) -> Option<Period> {
        if let Some(period) = Self::parse_iso(text) {
            return Some(period);
        }
        let nanoseconds = duration::parse_signed(text).ok()?;
        Some(Period {
            repeats: -1,
            nanoseconds,
            ..Period::default()
        })
    }

    /// Reads an ISO 8601 duration of whole numbers.
    pub fn parse_iso(text: &str) -> Option<Period> {
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
                ("H", true) => (&mut period.nanoseconds, scaled(3600 * SECOND)?),
                ("M", true) => (&mut period.nanoseconds, scaled(60 * SECOND)?),
                ("S", true) => (&mut period.nanoseconds, scaled(SECOND)?),
                _ => return None,
            };
            *field = field.checked_add(value)?;
            rest = &rest[unit + 1..];
        }
        Some(period)
    }

    /// Whether it depends on the calendar.
    pub fn is_of_calendar(&self) -> bool {
        (self.years, self.months, self.days) != (0, 0, 0)
    }

    /// That much after `now`. Days that a month does not have run over into the
    /// next one.
    pub fn after(&self, now: Timestamp) -> Option<Timestamp> {
        let elapsed = SignedDuration::from_nanos(self.nanoseconds);
        if !self.is_of_calendar() {
            return now.checked_add(elapsed).ok();
        }
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
        time.checked_add(elapsed).ok()
    }
}

/// RFC 3339, a duration as Go writes it, or an ISO 8601 duration; the last two
/// count from `now`.
pub fn point(text: &str, now: Timestamp) -> Result<Timestamp, PointError> {
    if is_rfc3339(text)
        && let Ok(time) = text.parse()
    {
        return Ok(time);
    }
    let period = Period::parse(text).ok_or(PointError::Format)?;
    if period.repeats != -1 {
        return Err(PointError::Repeats(period));
    }
    period.after(now).ok_or(PointError::Format)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn periods_have_two_forms() {
        let parsed = |text| Period::parse(text).map(|it| (it.repeats, it.days, it.nanoseconds));
        assert_eq!(parsed("1m30s"), Some((-1, 0, 90 * SECOND)));
        assert_eq!(parsed("PT1M30S"), Some((-1, 0, 90 * SECOND)));
        assert_eq!(parsed("R5/PT1S"), Some((5, 0, SECOND)));
        assert_eq!(parsed("R5/"), Some((5, 0, 0)));
        assert_eq!(parsed("P1W"), Some((-1, 7, 0)));
        assert_eq!(parsed("-2s"), Some((-1, 0, -2 * SECOND)));
        for text in [
            "", "P", "R5/5s", "R/PT1S", "PT1D", "P1H", "5", "@daily", "Rx/PT1S",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let after = |text, now| Period::parse(text).unwrap().after(at(now)).unwrap();
        let date = "2026-01-31T10:00:00Z";
        assert_eq!(after("P1M", date), at("2026-03-03T10:00:00Z"));
        assert_eq!(after("P1Y1DT1H", date), at("2027-02-01T11:00:00Z"));
    }

    #[test]
    fn a_point_in_time_is_not_repeated() {
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(
            point("2026-12-01T00:00:00.5+01:00", now),
            Ok(at("2026-11-30T23:00:00.5Z"))
        );
        assert_eq!(point("PT5S", now), Ok(at("2026-01-01T00:00:05Z")));
        assert_eq!(point("-5s", now), Ok(at("2025-12-31T23:59:55Z")));
        for text in ["R3/PT5S", "R0/PT5S"] {
            let repeated = Period::parse(text).unwrap();
            assert_eq!(point(text, now), Err(PointError::Repeats(repeated)));
        }
        for text in [
            "",
            "5",
            "2026-12-01T00:00:00",
            "@every 5s",
            "2026-12-01T00:00:60Z",
        ] {
            assert_eq!(point(text, now), Err(PointError::Format), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_point_or_not(text in "[-+R0-9.PTYMWDHSmsh/:Zé]{0,24}") {
            let _ = point(&text, at("2026-01-01T00:00:00Z"));
        }
    }
}
