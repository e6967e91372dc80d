//! Names of reminders and timers, which become parts of paths and keys.

use outrider_kit::quote;

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
    if matches!(name, "." | "..") {
        let shown = quote::go(name);
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
}
