//! Times in a layout as Go has it: the moment `Mon Jan 2 15:04:05 MST 2006`
//! written as times are to be.
//! <https://pkg.go.dev/time#pkg-constants>

use std::fmt::Write as _;

use jiff::{Timestamp, Zoned};

/// A layout, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// As `strftime` names it.
    Part(&'static str),
    /// Parts of a second behind a separator; with `trim` without zeros at the
    /// end, and nothing where nothing is left.
    Fraction {
        separator: char,
        digits: usize,
        trim: bool,
    },
    /// The offset, or `Z` where there is none.
    Offset(&'static str),
}

/// Longer ones before those that they begin with.
const PARTS: [(&str, &str); 28] = [
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("2006", "%Y"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("_2", "%e"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("4", "%-M"),
    ("5", "%-S"),
    // What Go writes without a zone.
    ("Z07:00", "Z%:z"),
    ("Z0700", "Z%z"),
    ("-07", "%:::z"),
    ("Z07", "Z%:::z"),
];

impl Layout {
    /// None for the default: RFC 3339 in UTC, with nine digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (piece, length) = part(rest)
                .or_else(|| fraction(rest))
                .unwrap_or_else(|| (Piece::Text(first.to_string()), first.len_utf8()));
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                (_, piece) => pieces.push(piece),
            }
            rest = &rest[length..];
        }
        (!pieces.is_empty()).then_some(Self(pieces))
    }

    /// The time now, in the zone of the process.
    pub fn now(&self) -> String {
        self.format(&Zoned::now())
    }

    fn format(&self, time: &Zoned) -> String {
        let mut text = String::with_capacity(40);
        for piece in &self.0 {
            // Writing to a string cannot fail.
            let _ = match piece {
                Piece::Text(plain) => text.write_str(plain),
                Piece::Part(part) => write!(text, "{}", time.strftime(part)),
                Piece::Offset(_) if time.offset().is_zero() => text.write_str("Z"),
                Piece::Offset(part) => write!(text, "{}", time.strftime(part)),
                Piece::Fraction {
                    separator,
                    digits,
                    trim,
                } => {
                    let all = format!("{:09}", time.subsec_nanosecond());
                    let shown = &all[..*digits];
                    let shown = match trim {
                        true => shown.trim_end_matches('0'),
                        false => shown,
                    };
                    match shown {
                        "" => Ok(()),
                        shown => write!(text, "{separator}{shown}"),
                    }
                }
            };
        }
        text
    }
}

fn part(rest: &str) -> Option<(Piece, usize)> {
    // Of those that fit the longest.
    let fits = PARTS.iter().filter(|(go, _)| rest.starts_with(go));
    let (go, ours) = fits.max_by_key(|(go, _)| go.len())?;
    let piece = match ours.strip_prefix('Z') {
        Some(offset) => Piece::Offset(offset),
        None => Piece::Part(ours),
    };
    Some((piece, go.len()))
}

/// `.000` and `,000` keep zeros at the end, `.999` does not.
fn fraction(rest: &str) -> Option<(Piece, usize)> {
    let mut chars = rest.chars();
    let separator = chars.next().filter(|c| matches!(c, '.' | ','))?;
    let digit = chars.next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = rest[1..].chars().take_while(|c| *c == digit).count();
    let is_last = !rest[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
    let piece = Piece::Fraction {
        separator,
        digits,
        trim: digit == '9',
    };
    (is_last && digits <= 9).then_some((piece, 1 + digits))
}

/// RFC 3339 in UTC, with nine digits.
pub fn default() -> String {
    format!("{:.9}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use jiff::tz::{Offset, TimeZone};

    use super::*;

    fn format(layout: &str, hours: i8) -> String {
        let zone = TimeZone::fixed(Offset::constant(hours));
        let time = civil::datetime(2026, 2, 3, 16, 5, 6, 70_800_000);
        let time = time.to_zoned(zone).unwrap();
        Layout::parse(layout).unwrap().format(&time)
    }

    #[test]
    fn layouts_of_gos_library() {
        for (layout, expected) in [
            (
                "2006-01-02T15:04:05.999999999Z07:00",
                "2026-02-03T16:05:06.0708+02:00",
            ),
            ("2006-01-02T15:04:05Z07:00", "2026-02-03T16:05:06+02:00"),
            (
                "Mon, 02 Jan 2006 15:04:05 -0700",
                "Tue, 03 Feb 2026 16:05:06 +0200",
            ),
            ("Jan _2 15:04:05.000", "Feb  3 16:05:06.070"),
            ("3:04PM", "4:05PM"),
            ("2006/1/2 15:04:05,000000", "2026/2/3 16:05:06,070800"),
            ("Monday January 06", "Tuesday February 26"),
            ("at 15h", "at 16h"),
        ] {
            assert_eq!(format(layout, 2), expected, "{layout}");
        }
        assert_eq!(format("15:04Z07:00", 0), "16:05Z");
    }

    #[test]
    fn an_empty_layout_is_the_default() {
        assert_eq!(Layout::parse(""), None);
        assert!(default().ends_with('Z'));
    }
}
