//! The API token. <https://docs.dapr.io/operations/security/api-token/>

use http::{HeaderMap, HeaderValue};

pub const HEADER: &str = "dapr-api-token";

/// Whether `headers` carry the expected token, if there is one. Whatever came
/// under its name is taken out: it is for this sidecar and goes no further.
pub fn admit(headers: &mut HeaderMap, expected: Option<&str>) -> bool {
    let given = headers.remove(HEADER);
    let Some(expected) = expected else {
        return true;
    };
    given.is_some_and(|given| same(given.as_bytes(), expected.as_bytes()))
}

/// Leaves only `token` under the header's name.
pub fn replace(headers: &mut HeaderMap, token: Option<&HeaderValue>) {
    match token {
        Some(token) => drop(headers.insert(HEADER, token.clone())),
        None => drop(headers.remove(HEADER)),
    }
}

/// Compares in a time that does not tell where two tokens differ.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let differences = given
        .iter()
        .zip(expected)
        .fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == expected.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_admitted() {
        let with = |token: &str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static(HEADER),
                token.parse().unwrap(),
            )])
        };
        assert!(admit(&mut HeaderMap::new(), None));
        assert!(!admit(&mut HeaderMap::new(), Some("x")));
        assert!(!admit(&mut with("xy"), Some("x")));
        assert!(!admit(&mut with("y"), Some("x")));
        for expected in [Some("x"), Some("y"), None] {
            let mut headers = with("x");
            assert_eq!(admit(&mut headers, expected), expected != Some("y"));
            assert!(headers.is_empty());
        }
    }
}
