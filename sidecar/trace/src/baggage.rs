//! `baggage`: what applications say along a trace.
//! <https://www.w3.org/TR/baggage/>

use http::{HeaderMap, HeaderValue};
use outrider_kit::quote;

pub const BAGGAGE: &str = "baggage";
const MAX: usize = 8192;
const MEMBERS: usize = 64;
/// Faults that an error names.
const NAMED: usize = 5;

/// Why baggage is refused, in the words that OpenTelemetry's library for Go
/// has for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid baggage header: {0}")]
pub struct Invalid(String);

/// The baggage among headers, several lines as one; none where it is empty.
pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Option<HeaderValue>, Invalid> {
    let mut values = headers.get_all(BAGGAGE).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    let rest: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
    let value = if rest.is_empty() {
        first.clone()
    } else {
        let all = [first.as_bytes()].into_iter().chain(rest);
        let joined = all.collect::<Vec<_>>().join(&b',');
        HeaderValue::from_bytes(&joined).map_err(|e| Invalid(e.to_string()))?
    };
    if value.is_empty() {
        return Ok(None);
    }
    check(value.as_bytes())?;
    Ok(Some(value))
}

/// Whether every member has a name and a value, and properties that are none
/// or the same.
pub fn check(text: &[u8]) -> Result<(), Invalid> {
    if text.len() > MAX {
        let size = text.len();
        return Err(Invalid(format!("baggage-string too large: {size}")));
    }
    let text = String::from_utf8_lossy(text);
    let mut faults = Vec::new();
    for (index, member) in text.split(',').enumerate() {
        if index == MEMBERS {
            faults.push("too many list-members in baggage-string".to_owned());
            break;
        }
        if let Err(fault) = check_member(member) {
            faults.push(fault);
        }
    }
    faults.truncate(NAMED);
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Invalid(faults.join("\n"))),
    }
}

fn check_member(member: &str) -> Result<(), String> {
    let mut parts = member.split(';');
    let pair = parts.next().unwrap_or_default();
    for property in parts {
        if !property.is_empty() && !is_property(property) {
            let property = quote::go(property);
            return Err(format!("invalid baggage list-member property: {property}"));
        }
    }
    let Some((key, value)) = pair.split_once('=') else {
        let member = quote::go(member);
        return Err(format!("invalid baggage list-member: {member}"));
    };
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(is_token) {
        return Err(format!("invalid key: {}", quote::go(key)));
    }
    if !value.trim().bytes().all(is_value) {
        return Err(format!("invalid value: {}", quote::go(value)));
    }
    match wrong_escape(value.trim()) {
        None => Ok(()),
        Some(escape) => Err(format!(
            "invalid value: invalid URL escape {}",
            quote::go(escape)
        )),
    }
}

fn is_property(property: &str) -> bool {
    let (key, value) = match property.split_once('=') {
        None => (property, ""),
        Some((key, value)) => (key, value),
    };
    let blank = [' ', '\t'];
    let (key, value) = (key.trim_matches(blank), value.trim_matches(blank));
    !key.is_empty() && key.bytes().all(is_token) && value.bytes().all(is_value)
}

/// RFC 9110, section 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_value(b: u8) -> bool {
    matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

/// The first percent sign without two hexadecimal digits behind it.
fn wrong_escape(value: &str) -> Option<&str> {
    let bytes = value.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = bytes.get(at + 1..at + 3);
            if !digits.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)) {
                return Some(&value[at..value.len().min(at + 3)]);
            }
            at += 2;
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn validity() {
        for text in [
            "a=b",
            "key1=value1,key2=value2",
            " a = b ; p ; q = r ",
            "a=%20b",
            "a=",
            "a=b;",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
        for (text, cause) in [
            (
                "invalid-baggage",
                r#"invalid baggage list-member: "invalid-baggage""#,
            ),
            ("=b", r#"invalid key: """#),
            ("a b=c", r#"invalid key: "a b""#),
            ("a=b\"", r#"invalid value: "b\"""#),
            ("a=%2", r#"invalid value: invalid URL escape "%2""#),
            ("a=b;=", r#"invalid baggage list-member property: "=""#),
            (
                "a,b=c,",
                "invalid baggage list-member: \"a\"\ninvalid baggage list-member: \"\"",
            ),
        ] {
            let error = check(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("invalid baggage header: {cause}"));
        }
        let large = format!("a={}", "x".repeat(MAX));
        assert!(check(large.as_bytes()).is_err());
        let many = vec!["a=b"; 65].join(",");
        assert!(check(many.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }
    }
}
