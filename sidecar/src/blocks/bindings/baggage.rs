//! Whether a `baggage` header is one. <https://www.w3.org/TR/baggage/>

use http::HeaderMap;
use outrider_kit::quote;

pub const HEADER: &str = "baggage";
/// Bytes that all of it may have.
const LONGEST: usize = 8192;

/// All baggage of a request as one text; none where there is none.
pub fn of_headers(headers: &HeaderMap) -> Result<Option<String>, String> {
    let values: Vec<_> = headers
        .get_all(HEADER)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    if values.is_empty() {
        return Ok(None);
    }
    let text = values.join(",");
    check(&text)?;
    Ok(Some(text))
}

fn check(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("it has {} bytes, more than {LONGEST}", text.len()));
    }
    if text.is_empty() {
        return Ok(());
    }
    let mut members = text.split(',');
    match members.find(|member| !is_member(member)) {
        None => Ok(()),
        Some(wrong) => Err(format!("invalid baggage list-member: {}", quote::go(wrong))),
    }
}

/// `key=value`, and properties behind semicolons.
fn is_member(text: &str) -> bool {
    let mut parts = text.split(';');
    let pair = parts.next().unwrap_or_default();
    let Some((key, value)) = pair.split_once('=') else {
        return false;
    };
    is_token(key.trim()) && is_value(value.trim()) && parts.all(is_property)
}

fn is_property(text: &str) -> bool {
    match text.split_once('=') {
        None => is_token(text.trim()),
        Some((key, value)) => is_token(key.trim()) && is_value(value.trim()),
    }
}

fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

fn is_value(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"\",;\\".contains(&b);
    text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_keys_with_values_and_properties() {
        for good in ["", "a=1", "a=1, b = 2;p;q=3", "a=%20x", "a="] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in ["a", "=1", "a=1,", "a=1;", "a b=1", "a=\"x\"", "a=ü"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert!(check(&format!("a={}", "x".repeat(LONGEST))).is_err());
        assert_eq!(
            check("a=1,b"),
            Err(r#"invalid baggage list-member: "b""#.to_owned())
        );
    }

    #[test]
    fn several_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_headers(&headers), Ok(None));
        headers.append(HEADER, "a=1".parse().unwrap());
        headers.append(HEADER, "b=2".parse().unwrap());
        assert_eq!(of_headers(&headers), Ok(Some("a=1,b=2".to_owned())));
    }
}
