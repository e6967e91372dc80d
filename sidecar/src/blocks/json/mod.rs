//! JSON as Go's encoder writes it, which clients of Dapr have come to compare
//! byte by byte: `<`, `>`, `&` and the two line separators are escaped.
//! <https://pkg.go.dev/encoding/json#Marshal>

pub mod members;
pub mod shape;
mod syntax;

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter};

use self::shape::Shape;

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // What the line separators begin with is the only byte beyond ASCII.
        if !fragment
            .bytes()
            .any(|byte| matches!(byte, b'<' | b'>' | b'&' | 0xe2))
        {
            return writer.write_all(fragment.as_bytes());
        }
        let mut start = 0;
        for (index, c) in fragment.char_indices() {
            let escape = match c {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            writer.write_all(&fragment.as_bytes()[start..index])?;
            writer.write_all(escape.as_bytes())?;
            start = index + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[start..])
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let magnitude = value.abs();
        if value == value.trunc() && magnitude < 1e21 {
            // The shortest digits that tell the value, then zeros.
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let places = exponent.parse::<usize>().unwrap_or(0);
            let (sign, digits) = digits.split_at(usize::from(digits.starts_with('-')));
            let digits = digits.replace('.', "");
            return write!(writer, "{sign}{digits:0<width$}", width = places + 1);
        }
        if !(1e-6..1e21).contains(&magnitude) {
            let text = format!("{value:e}");
            let text = match text.split_once('e') {
                Some((mantissa, exponent)) if !exponent.starts_with('-') => {
                    format!("{mantissa}e+{exponent}")
                }
                _ => text,
            };
            return writer.write_all(text.as_bytes());
        }
        CompactFormatter.write_f64(writer, value)
    }
}

/// Adds `text` as a string.
pub fn write_text(into: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| {
        matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
    };
    if text.bytes().all(is_plain) {
        into.push(b'"');
        into.extend_from_slice(text.as_bytes());
        into.push(b'"');
        return;
    }
    let mut serializer = serde_json::Serializer::with_formatter(into, Escaping);
    // Writing into memory does not fail.
    let _ = text.serialize(&mut serializer);
}

/// The text of `value`.
pub fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Escaping);
    match value.serialize(&mut serializer) {
        Ok(()) => text,
        // Only maps with keys that are not text can fail, and there are none.
        Err(error) => format!(
            "{{\"errorCode\":\"ERR_INTERNAL\",\"message\":{:?}}}",
            error.to_string()
        )
        .into_bytes(),
    }
}

/// The same with the line feed that Go's stream encoder ends with.
pub fn to_line(value: &impl Serialize) -> Vec<u8> {
    let mut text = to_vec(value);
    text.push(b'\n');
    text
}

/// `value` decoded and encoded again: whole numbers lose their fraction, keys
/// are sorted. Integers of 64 bits keep their digits.
pub fn normal(value: &Value) -> Vec<u8> {
    to_vec(&Normal(value))
}

struct Normal<'a>(&'a Value);

impl Serialize for Normal<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                number.serialize(serializer)
            }
            Value::Number(number) => serializer.serialize_f64(number.as_f64().unwrap_or_default()),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Normal)),
            Value::Object(object) => {
                let sorted: BTreeMap<&String, Normal<'_>> =
                    object.iter().map(|(k, v)| (k, Normal(v))).collect();
                serializer.collect_map(sorted)
            }
            other => other.serialize(serializer),
        }
    }
}

/// What is wrong with a JSON text that should have a shape, in the words of
/// Go's decoder.
pub fn decode_error(error: &serde_json::Error, text: &[u8], shape: &Shape) -> String {
    let end = match syntax::first_value(text) {
        Ok(end) => end,
        Err(fault) => return fault.to_string(),
    };
    let first = text.get(..end).map(String::from_utf8_lossy);
    let mismatch = first.and_then(|first| shape::mismatch(&first, shape));
    mismatch.unwrap_or_else(|| {
        let message = error.to_string();
        let message = message.rsplit_once(" at line ");
        message.map_or_else(|| error.to_string(), |(message, _)| message.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form() {
        let cases = [
            ("1.0", "1"),
            ("2e3", "2000"),
            ("12345678901234567890", "12345678901234567890"),
            ("-9007199254740993", "-9007199254740993"),
            ("1.5", "1.5"),
            ("0.0", "0"),
            ("-100.0", "-100"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("-0.0000001", "-1e-7"),
            (
                r#"{"b":1,"a":"<x>&"}"#,
                r#"{"a":"\u003cx\u003e\u0026","b":1}"#,
            ),
            ("null", "null"),
        ];
        for (given, expected) in cases {
            let value: Value = serde_json::from_str(given).unwrap();
            assert_eq!(String::from_utf8(normal(&value)).unwrap(), expected);
        }
    }

    #[test]
    fn words_for_what_is_wrong() {
        let message = |text: &str| {
            let error = serde_json::from_str::<Vec<u8>>(text).unwrap_err();
            decode_error(
                &error,
                text.as_bytes(),
                &Shape::List("[]string", &Shape::Text),
            )
        };
        assert_eq!(message(""), "EOF");
        assert_eq!(message("[1,"), "unexpected EOF");
        assert_eq!(
            message("hello"),
            "invalid character 'h' looking for beginning of value"
        );
        assert_eq!(
            message("{}"),
            "json: cannot unmarshal object into Go value of type []string"
        );
        // Where nothing is wrong in Go's eyes the decoder's own words remain.
        assert_eq!(message("null"), "invalid type: null, expected a sequence");
    }
}
