//! Durations and lists of codes, as resources write them.

use std::ops::RangeInclusive;
use std::time::Duration;

use outrider_kit::{duration, quote};

/// A duration; a bare integer is milliseconds. Below zero counts as zero.
pub fn duration(text: &str) -> Result<Duration, duration::ParseError> {
    let nanoseconds = match text.parse::<i64>() {
        Ok(milliseconds) => milliseconds.saturating_mul(1_000_000),
        Err(_) => duration::parse_signed(text)?,
    };
    Ok(Duration::from_nanos(
        u64::try_from(nanoseconds).unwrap_or_default(),
    ))
}

const HTTP: RangeInclusive<i64> = 100..=599;
const GRPC: RangeInclusive<i64> = 0..=16;

/// Which failures are tried again, by their codes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    http: Option<Vec<RangeInclusive<i64>>>,
    grpc: Option<Vec<RangeInclusive<i64>>>,
}

impl Matching {
    /// Codes and ranges, such as `429,500-599`; an empty list means all codes.
    pub fn new(http: &str, grpc: &str) -> Result<Self, CodesError> {
        Ok(Self {
            http: codes(http, HTTP)?,
            grpc: codes(grpc, GRPC)?,
        })
    }

    /// Whether a failure with this code is tried again.
    pub fn has(&self, code: u16) -> bool {
        let code = i64::from(code);
        let list = match code {
            code if GRPC.contains(&code) => &self.grpc,
            code if HTTP.contains(&code) => &self.http,
            _ => return false,
        };
        list.as_ref()
            .is_none_or(|ranges| ranges.iter().any(|range| range.contains(&code)))
    }
}

/// What is wrong with a list of codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodesError {
    #[error("invalid pattern {0}, more than one '-' exists")]
    Dashes(String),
    #[error("failed to parse {end} code {code} from pattern {pattern} to int, strconv.Atoi: parsing {}: {why}", quote::go(.code))]
    Number {
        end: &'static str,
        code: String,
        pattern: String,
        why: &'static str,
    },
    #[error("invalid pattern {pattern}, {end} code {code} is not valid")]
    Range {
        end: &'static str,
        code: i64,
        pattern: String,
    },
    #[error("invalid pattern {0}, start value should not bigger than end value")]
    Backwards(String),
}

fn codes(
    text: &str,
    valid: RangeInclusive<i64>,
) -> Result<Option<Vec<RangeInclusive<i64>>>, CodesError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.split(',')
        .filter(|pattern| !pattern.is_empty())
        .map(|pattern| range(pattern, &valid))
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

fn range(pattern: &str, valid: &RangeInclusive<i64>) -> Result<RangeInclusive<i64>, CodesError> {
    let code = |text: &str, end: &'static str| {
        let code: i64 =
            text.parse()
                .map_err(|error: std::num::ParseIntError| CodesError::Number {
                    end,
                    code: text.to_owned(),
                    pattern: pattern.to_owned(),
                    why: match error.kind() {
                        std::num::IntErrorKind::PosOverflow
                        | std::num::IntErrorKind::NegOverflow => "value out of range",
                        _ => "invalid syntax",
                    },
                })?;
        if valid.contains(&code) {
            Ok(code)
        } else {
            let pattern = pattern.to_owned();
            Err(CodesError::Range { end, code, pattern })
        }
    };
    let mut ends = pattern.split('-');
    let (first, last, more) = (ends.next().unwrap_or_default(), ends.next(), ends.next());
    if more.is_some() {
        return Err(CodesError::Dashes(pattern.to_owned()));
    }
    let start = code(first, "start")?;
    let end = last.map_or(Ok(start), |last| code(last, "end"))?;
    if end < start {
        return Err(CodesError::Backwards(pattern.to_owned()));
    }
    Ok(start..=end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bare_integer_is_milliseconds_and_below_zero_is_zero() {
        for (text, milliseconds) in [
            ("5s", 5_000),
            ("250", 250),
            ("0", 0),
            ("-3", 0),
            ("-1s", 0),
            ("1.5s", 1_500),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        assert_eq!(
            duration("xx").unwrap_err().to_string(),
            "time: invalid duration \"xx\""
        );
        assert_eq!(
            duration("1.5").unwrap_err().to_string(),
            "time: missing unit in duration \"1.5\""
        );
    }

    #[test]
    fn http_and_grpc_codes_and_ranges_match() {
        let matching = Matching::new("429,500-599", "1,5-7,").unwrap();
        for code in [429, 500, 599, 1, 5, 7] {
            assert!(matching.has(code), "{code}");
        }
        for code in [404, 428, 0, 4, 8, 16, 17, 99, 600] {
            assert!(!matching.has(code), "{code}");
        }
        let all = Matching::default();
        assert!(all.has(0) && all.has(404) && !all.has(20) && !all.has(600));
        assert!(!Matching::new(",", "").unwrap().has(500));
    }

    #[test]
    fn errors_name_the_pattern_and_the_wrong_code() {
        let http = |text| Matching::new(text, "").unwrap_err().to_string();
        assert_eq!(
            http("600"),
            "invalid pattern 600, start code 600 is not valid"
        );
        assert_eq!(
            http("500-600"),
            "invalid pattern 500-600, end code 600 is not valid"
        );
        assert_eq!(
            http("502-500"),
            "invalid pattern 502-500, start value should not bigger than end value"
        );
        assert_eq!(
            http("1-2-3"),
            "invalid pattern 1-2-3, more than one '-' exists"
        );
        assert_eq!(
            http("500, 501"),
            "failed to parse start code  501 from pattern  501 to int, strconv.Atoi: parsing \" 501\": invalid syntax"
        );
        assert!(Matching::new("", "17").is_err());
        assert!(http("99999999999999999999").ends_with("value out of range"));
    }

    proptest! {
        #[test]
        fn prop_durations_never_panic(text in "\\PC{0,30}") {
            let _ = duration(&text);
        }

        #[test]
        fn prop_integers_are_milliseconds(milliseconds in 0u32..) {
            let expected = Duration::from_millis(milliseconds.into());
            prop_assert_eq!(duration(&milliseconds.to_string()), Ok(expected));
        }

        #[test]
        fn prop_codes_never_panic(text in "[0-9, -]{0,20}|\\PC{0,20}") {
            let _ = Matching::new(&text, &text);
        }

        #[test]
        fn prop_a_list_has_what_it_names(ranges in proptest::collection::vec((100u16..600, 0u16..50), 1..5), code in 100u16..600) {
            let ranges: Vec<_> = ranges.into_iter().map(|(from, more)| (from, (from + more).min(599))).collect();
            let text: Vec<String> = ranges.iter().map(|(from, to)| format!("{from}-{to}")).collect();
            let expected = ranges.iter().any(|(from, to)| (from..=to).contains(&&code));
            prop_assert_eq!(Matching::new(&text.join(","), "").unwrap().has(code), expected);
        }
    }
}
