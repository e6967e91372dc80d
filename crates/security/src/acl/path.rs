//! The form in which a method is checked, and in which the application gets it.

use std::borrow::Cow;

use outrider_kit::quote;

/// A method that is refused before anything is decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMethod {
    #[error("method contains forbidden character: {}", shown(.0))]
    Forbidden(String),
    #[error("method contains control character at position {at}: {}", shown(.method))]
    Control { at: usize, method: String },
    #[error(
        "method can be read in two ways, by a backslash, an escaped slash, dot or null, or a semicolon behind dots: {}",
        shown(.0)
    )]
    Disguised(String),
}

/// Characters of a method that an error repeats: it becomes part of a header.
const SHOWN: usize = 256;

fn shown(method: &str) -> String {
    match method.char_indices().nth(SHOWN) {
        None => quote::go(method),
        Some((end, _)) => format!("{}...", quote::go(&method[..end])),
    }
}

/// Levels of escapes within escapes that are decoded.
const DEPTH: usize = 8;

/// Resolves `.`, `..` and repeated slashes, so that no two spellings of a path
/// are checked differently. Escapes are kept, but what they stand for, however
/// often they are decoded, must not be part of the path's structure. A path
/// that needs no change is not copied.
pub fn normalise(method: &str) -> Result<Cow<'_, str>, BadMethod> {
    let mut before = b'/';
    let (mut is_plain, mut is_tidy) = (true, true);
    for (at, byte) in method.bytes().enumerate() {
        match byte {
            0..0x20 | 0x7f | b'#' | b'?' | b'%' | b';' | b'\\' => is_plain = false,
            b'/' | b'.' if before == b'/' && at > 0 => is_tidy = false,
            b'.' if at == 0 => is_tidy = false,
            _ => {}
        }
        before = byte;
    }
    if !is_plain {
        check(method)?;
    }
    if is_tidy && (method.len() < 2 || before != b'/') {
        return Ok(Cow::Borrowed(method));
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in method.split('/') {
        match segment {
            "" | "." => {}
            // Above the top there is nothing to go up to.
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let root = if method.starts_with('/') { "/" } else { "" };
    Ok(Cow::Owned(format!("{root}{}", kept.join("/"))))
}

fn check(method: &str) -> Result<(), BadMethod> {
    if method.contains(['#', '?', '\0']) {
        return Err(BadMethod::Forbidden(method.to_owned()));
    }
    if let Some(at) = method.bytes().position(|b| b < 0x20 || b == 0x7f) {
        return Err(BadMethod::Control {
            at,
            method: method.to_owned(),
        });
    }
    let mut level = Cow::Borrowed(method.as_bytes());
    for _ in 0..DEPTH {
        if is_disguised(&level) {
            break;
        }
        match decode(&level) {
            None => return Ok(()),
            Some(deeper) => level = Cow::Owned(deeper),
        }
    }
    Err(BadMethod::Disguised(method.to_owned()))
}

/// Whether some servers see other segments in this than others do.
fn is_disguised(path: &[u8]) -> bool {
    // No escape makes a slash, so that these are the segments of every level.
    let is_dot_segment = |segment: &[u8]| {
        // Servlet containers cut parameters off before they resolve dots.
        let mut parts = segment.splitn(2, |b| *b == b';');
        let name = parts.next().unwrap_or_default();
        parts.next().is_some() && matches!(name, b"" | b"." | b"..")
    };
    // Slashes, dots and backslashes in more bytes than UTF-8 allows (RFC 3629,
    // section 10).
    let is_overlong = |pair: &[u8]| {
        matches!(
            *pair,
            [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]
        )
    };
    let is_structure = |escape: &[u8]| {
        escape[0] == b'%'
            && matches!(
                &escape[1..].to_ascii_lowercase()[..],
                b"2f" | b"5c" | b"2e" | b"00"
            )
    };
    path.contains(&b'\\')
        || path.windows(3).any(is_structure)
        || path.windows(2).any(is_overlong)
        || path.split(|b| *b == b'/').any(is_dot_segment)
}

/// `path` with its escapes decoded once; nothing if it has none.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let hex = |at: usize| char::from(*path.get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        match (*byte == b'%').then(|| Some((hex(at + 1)? << 4) | hex(at + 2)?)) {
            Some(Some(value)) => {
                decoded.push(value as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    (decoded.len() < path.len()).then_some(decoded)
}

/// What an HTTP application may take a normalised path for: the path with its
/// escapes decoded, and without the parameters of its segments.
pub(super) fn readings(path: &str) -> Vec<String> {
    let mut readings = Vec::new();
    let mut level = Cow::Borrowed(path.as_bytes());
    for _ in 0..=DEPTH {
        let text = String::from_utf8_lossy(&level);
        if text.contains(';') {
            let names = text.split('/').map(|s| s.split(';').next().unwrap_or(s));
            readings.push(names.collect::<Vec<_>>().join("/"));
        }
        let deeper = decode(&level);
        if matches!(level, Cow::Owned(_)) {
            readings.push(text.into_owned());
        }
        let Some(deeper) = deeper else { break };
        level = Cow::Owned(deeper);
    }
    readings
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dot_segments_and_repeated_slashes_are_resolved() {
        for (method, normal) in [
            ("", ""),
            (".", ""),
            ("..", ""),
            ("/", "/"),
            ("//", "/"),
            ("a/b/", "a/b"),
            ("public///extra", "public/extra"),
            ("admin/../public", "public"),
            ("../../a", "a"),
            ("/../a/./b", "/a/b"),
            ("a/../../b", "b"),
            (".well-known/a", ".well-known/a"),
            ("a/.b", "a/.b"),
            ("/pkg.Service/Method", "/pkg.Service/Method"),
            ("a%20b;c\"*%25/%2520%zz%", "a%20b;c\"*%25/%2520%zz%"),
            ("caf\u{e9}/caf%E9", "caf\u{e9}/caf%E9"),
        ] {
            assert_eq!(normalise(method).as_deref(), Ok(normal), "{method}");
        }
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        for method in ["", "/", "a", "/a/b.c", "a%20b", "x/y;z"] {
            let normal = normalise(method).unwrap();
            assert!(matches!(normal, Cow::Borrowed(_)), "{method}");
        }
    }

    #[test]
    fn an_error_quotes_the_method() {
        assert_eq!(
            normalise("a?b\0").unwrap_err().to_string(),
            r#"method contains forbidden character: "a?b\x00""#
        );
        assert_eq!(
            normalise("é\tb").unwrap_err().to_string(),
            r#"method contains control character at position 2: "é\tb""#
        );
    }

    #[test]
    fn escaped_slashes_dots_and_backslashes_are_refused() {
        for method in [
            "a%2Fb",
            "a%2fb",
            "a%5Cb",
            "a\\b",
            "a/%2E%2e/b",
            "a%252fb",
            "a%25252eb",
            "a%%32%66b",
            "a%00",
            "a/..;/b",
            "a/..;x=1/b",
            "a/;/b",
            "..%3B/b",
            "a%c0%afb",
            "a/%c0%ae%c0%ae/b",
            "a/%e0%80%ae/b",
        ] {
            let refused = normalise(method);
            assert!(
                matches!(refused, Err(BadMethod::Disguised(_))),
                "{method}: {refused:?}"
            );
        }
        let deep = format!("a%{}2fb", "25".repeat(100_000));
        normalise(&deep).unwrap_err();
    }

    #[test]
    fn a_path_may_also_be_read_decoded_or_without_parameters() {
        assert_eq!(readings("%61dmin"), ["admin"]);
        assert_eq!(readings("%2561"), ["%61", "a"]);
        assert_eq!(readings("a;v=1/b"), ["a/b"]);
        assert_eq!(readings("a%3Bv"), ["a", "a;v"]);
    }

    proptest! {
        #[test]
        fn prop_normalising_twice_changes_nothing_and_leaves_no_dot_segments(method in "[/.a-b%é2e5cf;]{0,16}") {
            let Ok(once) = normalise(&method) else { return Ok(()) };
            prop_assert_eq!(normalise(&once), Ok(once.clone()));
            prop_assert!(once.split('/').all(|s| s != ".." && s != "."));
        }

        /// However often the application decodes the path, it finds the same
        /// segments that were checked.
        #[test]
        fn prop_decoding_changes_no_segments(method in "([/a]|%25|%2[Ff5Ee]|%5[Cc]|%32|%45|\\.|%|2|e){0,16}") {
            let Ok(normal) = normalise(&method) else { return Ok(()) };
            let segments = normal.split('/').count();
            let mut level = normal.as_bytes().to_vec();
            while let Some(deeper) = decode(&level) {
                level = deeper;
                let parts: Vec<_> = level.split(|b| *b == b'/').collect();
                prop_assert_eq!(parts.len(), segments);
                prop_assert!(!parts.contains(&&b".."[..]) && !parts.contains(&&b"."[..]));
            }
        }
    }
}
