//! Settings that are on or off. Flags and metadata have few words for it, see
//! [`parse`]; annotations and environment variables have more, see [`truthy`].

/// The text of a flag is neither true nor false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid syntax")]
pub struct ParseError;

/// The words of Go's command lines: <https://pkg.go.dev/strconv#ParseBool>.
pub fn parse(text: &str) -> Result<bool, ParseError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ParseError),
    }
}

/// Whether a setting's text means "on": `y`, `yes`, `true`, `t`, `on` or `1`
/// in any case, blanks around it ignored.
pub fn truthy(text: &str) -> bool {
    is_one_of(text, ["y", "yes", "true", "t", "on", "1"])
}

/// Whether a setting's text means "off", by the opposite words.
pub fn falsy(text: &str) -> bool {
    is_one_of(text, ["n", "no", "false", "f", "off", "0"])
}

fn is_one_of(text: &str, words: [&str; 6]) -> bool {
    let text = text.trim();
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_words_of_go() {
        for (text, value) in [
            ("true", Ok(true)),
            ("T", Ok(true)),
            ("1", Ok(true)),
            ("False", Ok(false)),
            ("0", Ok(false)),
            ("yes", Err(ParseError)),
            ("tRUE", Err(ParseError)),
            (" true", Err(ParseError)),
            ("", Err(ParseError)),
        ] {
            assert_eq!(parse(text), value, "{text:?}");
        }
    }

    #[test]
    fn settings_have_more_words_in_any_case() {
        for (on, off) in [("y", "N"), ("YES", "no"), (" true ", " False "), ("T", "f")] {
            assert!(truthy(on) && !falsy(on), "{on}");
            assert!(falsy(off) && !truthy(off), "{off}");
        }
        for neither in ["", "enabled", "2"] {
            assert!(!truthy(neither) && !falsy(neither), "{neither}");
        }
    }
}
