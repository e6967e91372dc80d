//! Durations as Go writes them: `1h2m3.5s`, `300ms`, `-1.5h`.
//! Syntax: <https://pkg.go.dev/time#ParseDuration>.

use std::time::Duration;

/// What is wrong with the text of a duration. The words are those that users
/// of Go programs know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a duration at all.
    #[error("time: invalid duration {0}")]
    Invalid(String),
    /// A number without its unit.
    #[error("time: missing unit in duration {0}")]
    MissingUnit(String),
    /// A unit that does not exist; the unit, then the whole text.
    #[error("time: unknown unit {0} in duration {1}")]
    UnknownUnit(String, String),
    /// The text is a duration, but below zero where that has no meaning.
    #[error("time: negative duration {0}")]
    Negative(String),
}

/// Nanoseconds of `text`, which may be negative.
pub fn parse_signed(text: &str) -> Result<i64, ParseError> {
    let invalid = || ParseError::Invalid(crate::quote::go(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole_end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let whole_text = &rest[..whole_end];
        rest = &rest[whole_end..];
        let mut fraction_text = "";
        if let Some(after) = rest.strip_prefix('.') {
            let end = after
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(after.len());
            fraction_text = &after[..end];
            rest = &after[end..];
        }
        if whole_text.is_empty() && fraction_text.is_empty() {
            return Err(invalid());
        }
        let unit_end = rest
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit_text = &rest[..unit_end];
        if unit_text.is_empty() {
            return Err(ParseError::MissingUnit(crate::quote::go(text)));
        }
        rest = &rest[unit_end..];
        let unit = nanoseconds_in(unit_text).ok_or_else(|| {
            ParseError::UnknownUnit(crate::quote::go(unit_text), crate::quote::go(text))
        })?;
        let whole: u64 = if whole_text.is_empty() {
            0
        } else {
            whole_text.parse().map_err(|_| invalid())?
        };
        let mut part = whole.checked_mul(unit).ok_or_else(invalid)?;
        let mut scale = unit as f64;
        let mut fraction = 0u64;
        for digit in fraction_text.bytes().take(18) {
            fraction = fraction * 10 + u64::from(digit - b'0');
            scale /= 10.0;
        }
        part = part
            .checked_add((fraction as f64 * scale) as u64)
            .ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
    }
    let limit = i64::MAX as u64 + u64::from(negative);
    if total > limit {
        return Err(invalid());
    }
    Ok(if negative {
        (total as i64).wrapping_neg()
    } else {
        total as i64
    })
}

/// The duration that `text` names; one below zero is refused.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    let nanoseconds = parse_signed(text)?;
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| ParseError::Negative(crate::quote::go(text)))
}

fn nanoseconds_in(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // Latin micro sign, Greek mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The text of `duration` in the canonical spelling: `1h0m0s`, `1.5s`, `200ms`.
pub fn format(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if nanoseconds < 1_000_000_000 {
        let (unit, size) = match nanoseconds {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanoseconds, size));
    }
    let seconds = nanoseconds / 1_000_000_000;
    let mut text = String::new();
    if seconds >= 3600 {
        text.push_str(&format!("{}h", seconds / 3600));
    }
    if seconds >= 60 {
        text.push_str(&format!("{}m", seconds / 60 % 60));
    }
    text.push_str(&decimal(nanoseconds % 60_000_000_000, 1_000_000_000));
    text.push('s');
    text
}

fn decimal(value: u128, unit: u128) -> String {
    let whole = value / unit;
    let rest = value % unit;
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_durations_are_parsed() {
        let cases: [(&str, i64); 12] = [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("30s", 30_000_000_000),
            ("1478s", 1_478_000_000_000),
            ("-5s", -5_000_000_000),
            ("+5s", 5_000_000_000),
            ("5.6s", 5_600_000_000),
            (".5s", 500_000_000),
            ("1.004s", 1_004_000_000),
            ("3h30m", 12_600_000_000_000),
            ("10.5s4m", 250_500_000_000),
            ("100ns", 100),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_signed(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn an_error_has_the_text_of_go() {
        let cases = [
            ("", "time: invalid duration \"\""),
            ("3", "time: missing unit in duration \"3\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            (".", "time: invalid duration \".\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(parse_signed(text).unwrap_err().to_string(), message);
        }
        assert!(matches!(parse("-1s"), Err(ParseError::Negative(_))));
    }

    #[test]
    fn format_is_the_canonical_spelling() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1\u{b5}s"),
            (200_000_000, "200ms"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(format(Duration::from_nanos(nanoseconds)), text);
        }
    }

    proptest! {
        #[test]
        fn prop_round_trip(nanoseconds in 0u64..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            let back = parse(&format(duration)).unwrap();
            // The fraction passes through a float, as it does in Go.
            prop_assert!(back.abs_diff(duration) <= Duration::from_nanos(1));
        }

        #[test]
        fn prop_never_panics(text in "\\PC{0,40}") {
            let _ = parse_signed(&text);
        }
    }
}
