//! Texts that show where requests go, without the credentials in URLs.

use std::fmt::{self, Display, Formatter};

/// A target or a path, shown without the userinfo of URLs in it. It may still
/// be escaped, more than once; what may be userinfo in any reading is left out.
/// <https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1>
pub struct Without<'a>(pub &'a str);

/// A character, how often it is escaped, and the bytes that it takes.
type Sign = (u8, usize, usize);

impl Display for Without<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(text) = *self;
        let bytes = text.as_bytes();
        let (mut at, mut shown) = (0, 0);
        while at < bytes.len() {
            let (sign, _, taken) = sign(&bytes[at..]);
            at += taken;
            if sign != b':' {
                continue;
            }
            // Slashes may have been made one.
            let mut slashes = None;
            let mut authority = at;
            while let Some((b'/', depth, taken)) = next(bytes, authority) {
                slashes = Some(slashes.map_or(depth, |known: usize| known.min(depth)));
                authority += taken;
            }
            let Some(depth) = slashes else { continue };
            let (end, userinfo) = userinfo(bytes, authority, depth);
            if let Some(userinfo) = userinfo {
                f.write_str(text.get(shown..authority).unwrap_or_default())?;
                shown = userinfo;
            }
            at = end;
        }
        f.write_str(text.get(shown..).unwrap_or_default())
    }
}

/// Where the authority that begins at `from` ends, and its userinfo, if it has
/// one. A slash that is escaped more often than those before it, `slashes`,
/// may be part of a password.
fn userinfo(bytes: &[u8], from: usize, slashes: usize) -> (usize, Option<usize>) {
    let (mut at, mut userinfo) = (from, None);
    while let Some((sign, depth, taken)) = next(bytes, at) {
        match sign {
            b'/' | b'?' | b'#' if depth <= slashes => break,
            b'@' => userinfo = Some(at + taken),
            _ => {}
        }
        at += taken;
    }
    (at, userinfo)
}

fn next(bytes: &[u8], at: usize) -> Option<Sign> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    Some(sign(rest))
}

/// The first character of a text that is not empty.
fn sign(bytes: &[u8]) -> Sign {
    let plain = (bytes[0], 0, 1);
    if bytes[0] != b'%' {
        return plain;
    }
    let mut depth = 1;
    let mut at = 1;
    while bytes[at..].starts_with(b"25") {
        depth += 1;
        at += 2;
    }
    let digits = bytes
        .get(at..at + 2)
        .and_then(|d| std::str::from_utf8(d).ok());
    match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        Some(byte @ (b':' | b'/' | b'?' | b'#' | b'@')) => (byte, depth, at + 2),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_is_left_out_however_it_is_escaped() {
        let cases = [
            ("http://user:passw0rd@host/x", "http://host/x"),
            ("https://user@host:1", "https://host:1"),
            (
                "GET /v1.0/invoke/http:/user:passw0rd@host/method/x",
                "GET /v1.0/invoke/http:/host/method/x",
            ),
            (
                "/v1.0/invoke/http%3A%2F%2Fuser%3Apassw0rd%40host/method/x",
                "/v1.0/invoke/http%3A%2F%2Fhost/method/x",
            ),
            (
                "/v1.0/invoke/http%253a%252f%252fuser:passw0rd%2540host/method/x",
                "/v1.0/invoke/http%253a%252f%252fhost/method/x",
            ),
            (
                "/v1.0/invoke/http%3A%2F%2Fuser:passw%252F0rd@host/method/x",
                "/v1.0/invoke/http%3A%2F%2Fhost/method/x",
            ),
            ("http://a@b:passw0rd@host", "http://host"),
            ("http://%2Fa%2Fpassw0rd@host", "http://%2Fhost"),
            (
                "http://host/http://user:passw0rd@other/",
                "http://host/http://other/",
            ),
        ];
        for (text, shown) in cases {
            assert_eq!(Without(text).to_string(), shown);
        }
    }

    #[test]
    fn other_text_is_shown_as_it_is() {
        for text in [
            "",
            "app",
            "%",
            "100%25",
            "http://",
            "http://host/users/@me",
            "http%3A%2F%2Fhost%2Fusers%2F@me",
            "/v1.0/invoke/app/method/a@b:c",
            "/v1.0/state/\u{e4}:%4\u{e4}",
        ] {
            assert_eq!(Without(text).to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_password_is_shown(
            user in "[:@%25340aF\u{e4}]{0,20}",
            rest in "[:@%25340aF\u{e4}]{0,20}",
        ) {
            let text = format!("http://{user}SECRET{rest}@host/x");
            let shown = Without(&text).to_string();
            proptest::prop_assert!(!shown.contains("SECRET"), "{shown}");
            proptest::prop_assert!(shown.ends_with("host/x"), "{shown}");
        }

        #[test]
        fn any_text_is_shown(text in "[:/@%25340aF\u{e4}]{0,40}") {
            let shown = Without(&text).to_string();
            proptest::prop_assert!(shown == text || text.contains('@') || text.contains("40"));
        }
    }
}
