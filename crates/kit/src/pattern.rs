//! Patterns as Go reads them: `\d`, `\s`, `\w` and `\b` are about ASCII, and
//! matching takes time in proportion to the text. A `.` is one byte, though, so that
//! a character outside ASCII is several of them.
//! <https://pkg.go.dev/regexp/syntax>

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// A compiled pattern, which matches anywhere in a text unless it is anchored.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let build = |unicode| {
            let mut builder = RegexBuilder::new(text);
            builder.unicode(unicode).size_limit(SIZE_LIMIT).build()
        };
        // What only Unicode has, such as `\p{Greek}` or `[ä-ü]`, needs all of it.
        let built = build(false).or_else(|_| build(true));
        built.map(Pattern).map_err(|error| error.to_string())
    }

    /// Whether the text has a match.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes())
    }

    /// What the named groups of the first match have, by their names. None
    /// without a match.
    pub fn named(&self, text: &str) -> Option<Vec<(&str, String)>> {
        let captures = self.0.captures(text.as_bytes())?;
        let names = self.0.capture_names().flatten();
        let named = names.filter_map(|name| {
            let bytes = captures.name(name)?.as_bytes();
            Some((name, String::from_utf8_lossy(bytes).into_owned()))
        });
        Some(named.collect())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, matches) in [
            ("^[A-Za-z0-9/._-]+$", "/v1.0/invoke/a/method/b", true),
            ("^[A-Za-z0-9/._-]+$", "/a?b", false),
            ("method", "/v1.0/invoke/a/method/b", true),
            ("", "anything", true),
            ("(?i)^/ADMIN", "/admin/x", true),
            (r"^\d+$", "\u{0663}", false),
            (r"^\w+$", "\u{e9}", false),
            ("^.$", "\u{e9}", false),
            ("^[\u{e0}-\u{ff}]$", "\u{e9}", true),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(compiled.is_match(text), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn patterns_that_are_wrong_or_too_large_are_refused() {
        for pattern in ["(", r"a\1", "(?=a)", "((a{100}){100}){100}"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
