//! Paths of URLs, in the way of Go's `path.Clean` and `url.QueryUnescape`.

use std::borrow::Cow;

/// The shortest path that means the same: doubled slashes, `.` and `..`
/// resolved, no slash at the end. An absolute path stays absolute.
/// <https://pkg.go.dev/path#Clean>
pub fn clean(path: &str) -> Cow<'_, str> {
    if is_clean(path) {
        return Cow::Borrowed(path);
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.last().is_some_and(|last| *last != "..") {
                    parts.pop();
                } else if !rooted {
                    parts.push("..");
                }
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    Cow::Owned(match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    })
}

/// In one pass over the bytes, since most paths are clean.
fn is_clean(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    // Bytes of the segment so far, and whether they are dots.
    let (mut length, mut dots) = (0, true);
    let segments = path.strip_prefix('/').unwrap_or(path);
    for byte in segments.bytes().chain([b'/']) {
        if byte != b'/' {
            length += 1;
            dots &= byte == b'.';
        } else if length == 0 || (dots && length <= 2) {
            return false;
        } else {
            (length, dots) = (0, true);
        }
    }
    true
}

/// A name that is not text once its escapes are decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not UTF-8 once it is decoded: escape the bytes of UTF-8", outrider_kit::quote::go(.0))]
pub struct NotText(String);

/// Percent signs and pluses decoded, for names, which have to be text.
pub fn query_unescape(text: &str) -> Result<Cow<'_, str>, NotText> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| NotText(text.to_owned()))?;
    Ok(Cow::Owned(decoded.into_owned()))
}

/// Whether every name and value of a query is text.
pub fn check_query(query: &str) -> Result<(), NotText> {
    // No character of UTF-8 goes on past the end of a name.
    let decoded = percent_encoding::percent_decode_str(query);
    if !query.as_bytes().contains(&b'%') || decoded.decode_utf8().is_ok() {
        return Ok(());
    }
    query
        .split('&')
        .try_for_each(|pair| query_unescape(pair).map(drop))
}

/// Percent signs decoded, pluses left alone. What is not UTF-8 keeps its
/// escapes, so that no byte is lost.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode_str(text).into();
    let bytes = match bytes {
        // Nothing was decoded.
        Cow::Borrowed(_) => return Cow::Borrowed(text),
        Cow::Owned(bytes) => bytes,
    };
    Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut kept = String::with_capacity(text.len());
        for chunk in error.as_bytes().utf8_chunks() {
            kept.push_str(chunk.valid());
            for byte in chunk.invalid() {
                kept.push_str(&format!("%{byte:02X}"));
            }
        }
        kept
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned() {
        let cases = [
            ("", "."),
            ("/", "/"),
            ("a/b", "a/b"),
            ("/a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("a/../..", ".."),
            ("/.../..a/.b", "/.../..a/.b"),
            ("/a/.", "/a"),
            ("//", "/"),
            ("a//b", "a/b"),
            ("/v1.0/state/s/k%2Fl", "/v1.0/state/s/k%2Fl"),
        ];
        for (given, expected) in cases {
            assert_eq!(clean(given), expected, "{given}");
        }
    }

    #[test]
    fn unescaped() {
        assert_eq!(query_unescape("a+b%2Bc%2Fd").unwrap(), "a b+c/d");
        assert_eq!(unescape("a+b%20c"), "a+b c");
        assert_eq!(query_unescape("50%").unwrap(), "50%");
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(unescape("caf%e9/%C3%A9%20"), "caf%E9/\u{e9} ");
        query_unescape("k%E9").unwrap_err();
        check_query("a=%C3%A9&b=+").unwrap();
        check_query("a=1&metadata.b=%E9").unwrap_err();
    }
}
