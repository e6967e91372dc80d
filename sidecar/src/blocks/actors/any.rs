//! Data of reminders and timers: JSON in a message that holds bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outrider_proto::Any;
use serde_json::value::RawValue;

use crate::blocks::jobs::value;

/// Bytes of a gRPC client as JSON: a text of them in base64. None if there are
/// none.
pub fn to_json(bytes: &[u8]) -> Option<Bytes> {
    (!bytes.is_empty()).then(|| format!("\"{}\"", STANDARD.encode(bytes)).into())
}

/// JSON as Go's encoder passes it on: without white space between its parts, and
/// with what HTML could mistake escaped. Clients compare it byte by byte.
pub fn compact(json: &str) -> Bytes {
    let mut compacted = String::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for c in json.chars() {
        match c {
            ' ' | '\t' | '\n' | '\r' if !in_text => continue,
            '<' => compacted.push_str("\\u003c"),
            '>' => compacted.push_str("\\u003e"),
            '&' => compacted.push_str("\\u0026"),
            '\u{2028}' => compacted.push_str("\\u2028"),
            '\u{2029}' => compacted.push_str("\\u2029"),
            other => compacted.push(other),
        }
        if c == '"' && !escaped {
            in_text = !in_text;
        }
        escaped = c == '\\' && !escaped;
    }
    compacted.into()
}

/// JSON in a message that holds bytes.
pub fn of_json(json: &Bytes) -> Any {
    outrider_actors::any::of(json.clone())
}

/// What is shown of data over HTTP; none if there is nothing that can be.
pub fn to_raw(any: &Any) -> Option<Box<RawValue>> {
    let json = match outrider_actors::any::is_bytes(any) {
        true => {
            let bytes = outrider_actors::any::bytes(any).ok()?;
            String::from_utf8(bytes.into()).ok()?
        }
        false => value::any_to_json(any).to_string(),
    };
    RawValue::from_string(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_between_parts_goes_and_nothing_else() {
        let json = r#"{ "a b" : [ 1.0 , "x \" y" ],
            "c\\":"<&>" }"#;
        let compacted = r#"{"a b":[1.0,"x \" y"],"c\\":"\u003c\u0026\u003e"}"#;
        assert_eq!(compact(json), compacted);
    }

    proptest::proptest! {
        #[test]
        fn prop_compacted_json_means_the_same(text in ".{0,20}", number: i64) {
            let value = serde_json::json!({ text.clone(): [number, text, null, {"a": true}] });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compacted: serde_json::Value = serde_json::from_slice(&compact(&pretty)).unwrap();
            proptest::prop_assert_eq!(compacted, value);
        }
    }

    #[test]
    fn json_keeps_its_text_and_bytes_become_base64() {
        let json = Bytes::from_static(br#"{"a": 1.0}"#);
        assert_eq!(to_raw(&of_json(&json)).unwrap().get(), r#"{"a": 1.0}"#);
        assert_eq!(to_json(b"mydata").unwrap(), "\"bXlkYXRh\"");
        assert_eq!(to_json(b""), None);
        let broken = of_json(&Bytes::from_static(b"{"));
        assert!(to_raw(&broken).is_none());
    }
}
