//! Data of jobs, as JSON and as messages.
//! <https://protobuf.dev/programming-guides/json/>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrider_proto::Any;
use prost::Message;
use prost_types::{Duration, ListValue, Struct};
use serde_json::{Map, Value, json};

use crate::blocks::proto_json::{of_message, of_struct, to_message};

const PREFIX: &str = "type.googleapis.com/";
const VALUE: &str = "google.protobuf.Value";

/// JSON of any kind, as a message of its own. None if it is nested more deeply
/// than messages can be.
pub fn json_to_any(json: Value) -> Option<Any> {
    let value = to_message(json).encode_to_vec();
    prost_types::Value::decode(value.as_slice()).ok()?;
    Some(Any {
        type_url: format!("{PREFIX}{VALUE}"),
        value,
    })
}

/// The data, with its type. Of a type that is not among the well-known ones
/// there are the bytes, in base64.
pub fn any_to_json(any: &Any) -> Value {
    let value = well_known(any).unwrap_or_else(|| STANDARD.encode(&any.value).into());
    json!({"@type": any.type_url, "value": value})
}

fn well_known(any: &Any) -> Option<Value> {
    let bytes = any.value.as_ref();
    let name = any.type_url.rsplit('/').next()?;
    let json = match name.strip_prefix("google.protobuf.")? {
        "Value" => of_message(prost_types::Value::decode(bytes).ok()?),
        "Struct" => Value::Object(of_struct(Struct::decode(bytes).ok()?)),
        "ListValue" => {
            let list = ListValue::decode(bytes).ok()?;
            list.values.into_iter().map(of_message).collect()
        }
        "StringValue" => String::decode(bytes).ok()?.into(),
        "BytesValue" => STANDARD.encode(Vec::<u8>::decode(bytes).ok()?).into(),
        "BoolValue" => bool::decode(bytes).ok()?.into(),
        "Int32Value" => i32::decode(bytes).ok()?.into(),
        "UInt32Value" => u32::decode(bytes).ok()?.into(),
        "DoubleValue" => f64::decode(bytes).ok()?.into(),
        "FloatValue" => f32::decode(bytes).ok()?.into(),
        // Too large for numbers of JSON.
        "Int64Value" => i64::decode(bytes).ok()?.to_string().into(),
        "UInt64Value" => u64::decode(bytes).ok()?.to_string().into(),
        "Empty" => Value::Object(Map::new()),
        _ => return None,
    };
    Some(json)
}

/// What an HTTP application gets: JSON if the data came as JSON, else the bytes.
pub fn body(any: &Any) -> Vec<u8> {
    if any.type_url.rsplit('/').next() == Some(VALUE)
        && let Ok(value) = prost_types::Value::decode(any.value.as_ref())
    {
        return serde_json::to_vec(&of_message(value)).unwrap_or_default();
    }
    trim(&any.value).to_vec()
}

/// Without white space at the ends, as Go counts it: the vertical tab, too. The
/// two bytes before a short text in a message are such.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b' ');
    let start = bytes.iter().position(|byte| !is_space(byte));
    let end = bytes.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => &bytes[start..=end],
        _ => &[],
    }
}

/// Seconds with up to nine decimals and an `s`.
pub fn duration_to_text(duration: &Duration) -> String {
    let (seconds, nanos) = (duration.seconds, duration.nanos.unsigned_abs());
    let sign = if duration.nanos < 0 && seconds == 0 {
        "-"
    } else {
        ""
    };
    match nanos {
        0 => format!("{seconds}s"),
        nanos if nanos % 1_000_000 == 0 => format!("{sign}{seconds}.{:03}s", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{sign}{seconds}.{:06}s", nanos / 1_000),
        nanos => format!("{sign}{seconds}.{nanos:09}s"),
    }
}

/// None if it is not a duration of JSON messages.
pub fn text_to_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    // The limit of the type.
    if seconds > 315_576_000_000 {
        return None;
    }
    Some(match negative {
        true => Duration {
            seconds: -seconds,
            nanos: -nanos,
        },
        false => Duration { seconds, nanos },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_comes_back_with_its_type() {
        let json = json!({"a": [1, "x", null, true, {"b": 2.5}]});
        let any = json_to_any(json.clone()).unwrap();
        assert_eq!(
            any_to_json(&any),
            json!({"@type": "type.googleapis.com/google.protobuf.Value", "value": json})
        );
        let text = Any {
            type_url: format!("{PREFIX}google.protobuf.StringValue"),
            value: "hello".to_owned().encode_to_vec(),
        };
        assert_eq!(any_to_json(&text)["value"], "hello");
        let unknown = Any {
            type_url: "acme/Thing".to_owned(),
            value: vec![1, 2],
        };
        assert_eq!(
            any_to_json(&unknown),
            json!({"@type": "acme/Thing", "value": "AQI="})
        );
    }

    #[test]
    fn an_application_gets_json_or_bytes() {
        assert_eq!(body(&json_to_any(json!("x")).unwrap()), b"\"x\"");
        let raw = Any {
            type_url: String::new(),
            value: b" raw \n".to_vec(),
        };
        assert_eq!(body(&raw), b"raw");
        let text = Any {
            type_url: format!("{PREFIX}google.protobuf.StringValue"),
            value: "hello world".to_owned().encode_to_vec(),
        };
        assert_eq!(body(&text), b"hello world");
        assert_eq!(body(&Any::default()), b"");
    }

    #[test]
    fn data_that_could_not_be_read_again_is_refused() {
        let nested = |depth: usize| {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            serde_json::from_str::<Value>(&text).unwrap()
        };
        assert!(json_to_any(nested(30)).is_some());
        assert!(json_to_any(nested(120)).is_none());
    }

    #[test]
    fn durations_of_json_messages() {
        for (text, seconds, nanos) in [
            ("5s", 5, 0),
            ("0.500s", 0, 500_000_000),
            ("-0.000000001s", 0, -1),
            ("1.000001s", 1, 1000),
        ] {
            let duration = Duration { seconds, nanos };
            assert_eq!(text_to_duration(text), Some(duration), "{text}");
            assert_eq!(duration_to_text(&duration), text);
        }
        for text in [
            "",
            "s",
            "5",
            "500ms",
            "1.0000000001s",
            "+1s",
            "1e3s",
            "315576000001s",
        ] {
            assert_eq!(text_to_duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_not(text in "[-+0-9.es]{0,24}") {
            if let Some(duration) = text_to_duration(&text) {
                let again = text_to_duration(&duration_to_text(&duration));
                prop_assert_eq!(again, Some(duration));
            }
        }
    }
}
