//! Paths of URLs, in the way of Go's `path.Clean` and `url.QueryUnescape`.

use std::borrow::Cow;

/// The shortest path that means the same: doubled slashes, `.` and `..`
/// resolved, no slash at the end. An absolute path stays absolute.
/// <https://pkg.go.dev/path#Clean>
pub fn clean(path: &str) -> Cow<'_, str> {
    let tidy = !path.contains("//")
        && !path.split('/').any(|s| s == "." || s == "..")
        && (path == "/" || !path.ends_with('/'));
    if tidy && !path.is_empty() {
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

/// Percent signs and pluses decoded; bytes that are no UTF-8 are replaced.
pub fn query_unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned(),
    )
}

/// Percent signs decoded, pluses left alone.
pub fn unescape(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
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
            ("/v1.0/state/s/k%2Fl", "/v1.0/state/s/k%2Fl"),
        ];
        for (given, expected) in cases {
            assert_eq!(clean(given), expected, "{given}");
        }
    }

    #[test]
    fn unescaped() {
        assert_eq!(query_unescape("a+b%2Bc%2Fd"), "a b+c/d");
        assert_eq!(unescape("a+b%20c"), "a+b c");
        assert_eq!(query_unescape("50%"), "50%");
    }
}
