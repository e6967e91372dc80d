//! Methods and ids, which become parts of the application's paths.

use std::borrow::Cow;

use outrider_actors::names;
use outrider_call::method;
use outrider_kit::quote;
use percent_encoding::percent_decode_str;

use super::error;
use crate::blocks::error::Result;

/// A method as it is sent. Nothing in it leads out of the actor.
pub fn method(given: &str) -> Result<String> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(given).into();
    let shown = || quote::go(&String::from_utf8_lossy(&decoded));
    for text in [given.as_bytes(), &decoded] {
        if text.iter().any(|byte| matches!(byte, b'#' | b'?' | 0)) {
            let why = format!("method contains forbidden character: {}", shown());
            return Err(error::bad_request(&why));
        }
        if let Some(at) = text.iter().position(u8::is_ascii_control) {
            let why = format!(
                "method contains control character at position {at}: {}",
                shown()
            );
            return Err(error::bad_request(&why));
        }
    }
    method::normal(given.to_owned()).map_err(|status| error::bad_request(status.message()))
}

pub fn id(given: &str) -> Result<()> {
    names::check(given).map_err(|why| error::bad_request(format!("invalid actorId: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_never_leave_their_actor() {
        assert_eq!(method("a/../b").unwrap(), "b");
        assert_eq!(method("a%20b").unwrap(), "a%20b");
        for wrong in [
            "a#b", "a%23b", "a%3fb", "a\0", "a%01b", "a%2Fb", "%2e%2e/b", "a\\b", "a%5cb",
        ] {
            assert!(method(wrong).is_err(), "{wrong}");
        }
        let refused = method("a#b").unwrap_err();
        assert_eq!(
            refused.message,
            "invalid request: method contains forbidden character: \"a#b\""
        );
    }

    #[test]
    fn ids_are_one_segment() {
        for right in ["a||b", "a@b", "a b", "é"] {
            assert!(id(right).is_ok(), "{right}");
        }
        let refused = id("..").unwrap_err();
        assert_eq!(
            refused.message,
            "invalid request: invalid actorId: name is a path traversal sequence: \"..\""
        );
        assert!(id("a/b").is_err() && id("a#b").is_err());
    }
}
