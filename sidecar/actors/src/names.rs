//! Names of reminders and timers, ids and types, which become parts of paths and
//! keys.

use outrider_kit::quote;

/// In bytes, of a name, an id or a type.
pub const LONGEST: usize = 512;

/// Why a name cannot be used. The words are those that clients of Dapr know.
pub fn check(name: &str) -> Result<(), String> {
    if name.contains(['#', '?', '/', '\\', '\0']) {
        let shown = quote::go(name);
        return Err(format!("name contains forbidden character: {shown}"));
    }
    if let Some(at) = name.bytes().position(|byte| byte.is_ascii_control()) {
        let shown = quote::go(name);
        return Err(format!(
            "name contains control character at position {at}: {shown}"
        ));
    }
    check_segment(name)
}

/// The same for what may have any character: it is escaped in paths. Dots are
/// not escaped.
pub fn check_segment(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("name has more than {LONGEST} bytes"));
    }
    if matches!(text, "." | "..") {
        let shown = quote::go(text);
        return Err(format!("name is a path traversal sequence: {shown}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_taken_for_paths_are_refused() {
        let refused = |name| check(name).unwrap_err();
        assert_eq!(
            refused("a/b"),
            r#"name contains forbidden character: "a/b""#
        );
        assert_eq!(
            refused("a\x01b"),
            r#"name contains control character at position 1: "a\x01b""#
        );
        assert_eq!(refused(".."), r#"name is a path traversal sequence: "..""#);
        for name in ["a#b", "a?b", "a\\b", "a\0b", ".", "\x7f"] {
            assert!(check(name).is_err(), "{name}");
        }
        for name in ["", "a b", "a||b", "\u{3ba}\u{3bb}", "...", "@"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_escaped_may_have_all_but_dots_and_is_not_long() {
        for text in ["a/b", "a#b", "...", &"x".repeat(LONGEST)] {
            assert_eq!(check_segment(text), Ok(()), "{text}");
        }
        for text in [".", "..", &"x".repeat(LONGEST + 1)] {
            assert!(check_segment(text).is_err(), "{text}");
            assert!(check(text).is_err(), "{text}");
        }
    }
}
