//! `tracestate`: what vendors say about a trace.
//! <https://www.w3.org/TR/trace-context/#tracestate-header>

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue};

use crate::context::TRACESTATE;

/// Characters that are passed on.
pub const MAX: usize = 512;
const MEMBERS: usize = 32;
const PART: usize = 256;

/// The state among headers, if there is one that can be passed on.
pub(crate) fn of_headers(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let joined;
    let value = match values.next() {
        None => first,
        Some(second) => {
            let all: Vec<&[u8]> = [first, second]
                .into_iter()
                .chain(values)
                .map(HeaderValue::as_bytes)
                .collect();
            joined = HeaderValue::from_bytes(&all.join(&b',')).ok()?;
            &joined
        }
    };
    is_valid(value.as_bytes()).then(|| value.clone())
}

/// Whether the text is a list of unlike keys with values.
pub fn is_valid(text: &[u8]) -> bool {
    if text.len() > MAX {
        return false;
    }
    let mut keys = HashSet::new();
    for member in text.split(|b| *b == b',') {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let Some(at) = member.iter().position(|b| *b == b'=') else {
            return false;
        };
        let (key, value) = (&member[..at], &member[at + 1..]);
        if !is_key(key) || !is_value(value) || !keys.insert(key) || keys.len() > MEMBERS {
            return false;
        }
    }
    !keys.is_empty()
}

fn is_key(key: &[u8]) -> bool {
    let lower = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let fits = |b: &u8| lower(b) || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@');
    let systems = key.iter().filter(|b| **b == b'@').count();
    key.first().is_some_and(lower) && key.len() <= PART && systems <= 1 && key.iter().all(fits)
}

fn is_value(value: &[u8]) -> bool {
    let fits = |b: &u8| matches!(b, 0x20..=0x7e) && *b != b'=';
    !value.is_empty() && value.len() <= PART && value.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn validity() {
        for text in [
            "a=b",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "t@s=1, b=2",
            ",a=b,",
        ] {
            assert!(is_valid(text.as_bytes()), "{text}");
        }
        let long = format!("a={}", "x".repeat(257));
        for text in [
            "", ",", "a", "A=b", "a=", "a=b,a=c", "a=b=c", "a@b@c=d", &long,
        ] {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert!(!is_valid(many.join(",").as_bytes()));
        assert!(is_valid(many[..32].join(",").as_bytes()));
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(of_headers(&headers).unwrap(), "a=1,b=2");
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = is_valid(&bytes);
        }
    }
}
