//! The form in which a method is judged, and in which the application gets it.

use outrider_kit::quote;

/// A method that is refused before anything is decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMethod {
    #[error("method contains forbidden character: {}", quote::go(.0))]
    Forbidden(String),
    #[error("method contains control character at position {at}: {}", quote::go(.method))]
    Control { at: usize, method: String },
}

/// Resolves `.`, `..` and repeated slashes, so that no two spellings of a path
/// are judged differently. Percent signs mean nothing here.
pub fn normalise(method: &str) -> Result<String, BadMethod> {
    if method.contains(['#', '?', '\0']) {
        return Err(BadMethod::Forbidden(method.to_owned()));
    }
    if let Some(at) = method.bytes().position(|b| b < 0x20 || b == 0x7f) {
        return Err(BadMethod::Control {
            at,
            method: method.to_owned(),
        });
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
    Ok(format!("{root}{}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn traversal_is_resolved_before_anything_is_decided() {
        for (method, normal) in [
            ("", ""),
            (".", ""),
            ("..", ""),
            ("/", "/"),
            ("a/b/", "a/b"),
            ("public///extra", "public/extra"),
            ("admin/../public", "public"),
            ("../../a", "a"),
            ("/../a/./b", "/a/b"),
            ("a/../../b", "b"),
            ("/pkg.Service/Method", "/pkg.Service/Method"),
            ("a%2Fb;c\\d\"*", "a%2Fb;c\\d\"*"),
        ] {
            assert_eq!(normalise(method).as_deref(), Ok(normal), "{method}");
        }
    }

    #[test]
    fn what_is_refused_is_quoted() {
        assert_eq!(
            normalise("a?b\0").unwrap_err().to_string(),
            r#"method contains forbidden character: "a?b\x00""#
        );
        assert_eq!(
            normalise("é\tb").unwrap_err().to_string(),
            r#"method contains control character at position 2: "é\tb""#
        );
    }

    proptest! {
        #[test]
        fn prop_normal_stays_normal_and_never_climbs(method in "[/.a-b%é]{0,16}") {
            let once = normalise(&method).unwrap();
            prop_assert_eq!(normalise(&once), Ok(once.clone()));
            prop_assert!(once.split('/').all(|s| s != ".." && s != "."));
        }
    }
}
