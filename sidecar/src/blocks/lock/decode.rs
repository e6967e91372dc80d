//! Requests over HTTP: JSON of a protobuf message. Fields may be spelled in
//! both ways, unknown ones are left out, and what is wrong is said in the words
//! of protobuf's decoder for Go.
//! <https://protobuf.dev/programming-guides/json/>

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::blocks::error::{Result, malformed};

/// What a request asks for; what it does not say is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub resource_id: String,
    pub lock_owner: String,
    pub expiry_in_seconds: i32,
}

pub fn asked(body: &[u8]) -> Result<Asked> {
    read(body).map_err(|what| malformed(format!("failed deserializing HTTP body: proto: {what}")))
}

fn read(body: &[u8]) -> std::result::Result<Asked, String> {
    let mut asked = Asked::default();
    if body.is_empty() {
        return Ok(asked);
    }
    let text = std::str::from_utf8(body).map_err(|_| "invalid UTF-8".to_owned())?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| syntax(&error, text))?;
    if !whole.get().starts_with('{') {
        let at = offset(text, whole.get());
        let (place, first) = (place(text, at), token(text, at));
        return Err(format!("syntax error ({place}): unexpected token {first}"));
    }
    let Members(members) = serde_json::from_str(text).map_err(|error| syntax(&error, text))?;
    let mut seen = [false; 3];
    for (name, value) in members {
        let (field, json_name) = match &*name {
            "resourceId" | "resource_id" => (0, "resourceId"),
            "lockOwner" | "lock_owner" => (1, "lockOwner"),
            "expiryInSeconds" | "expiry_in_seconds" => (2, "expiryInSeconds"),
            _ => continue,
        };
        let at = offset(text, value.get());
        if value.get() == "null" {
            continue;
        }
        if std::mem::replace(&mut seen[field], true) {
            // The name is just before its value.
            let at = text[..at].rfind(&format!("\"{name}\"")).unwrap_or(at);
            return Err(format!("({}): duplicate field {name:?}", place(text, at)));
        }
        let wrong = |kind: &str| {
            let (place, value) = (place(text, at), value.get());
            format!("({place}): invalid value for {kind} field {json_name}: {value}")
        };
        let string = || serde_json::from_str(value.get()).map_err(|_| wrong("string"));
        match field {
            0 => asked.resource_id = string()?,
            1 => asked.lock_owner = string()?,
            _ => asked.expiry_in_seconds = whole_number(value).ok_or_else(|| wrong("int32"))?,
        }
    }
    Ok(asked)
}

/// A number of 32 bits, in any of the ways to write one: `2`, `"2"`, `2.0`.
fn whole_number(value: &RawValue) -> Option<i32> {
    let quoted: Option<String> = serde_json::from_str(value.get()).ok();
    let text = quoted.as_deref().unwrap_or(value.get());
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    // Only numbers of JSON: no `inf`, no blanks.
    let number: f64 = serde_json::from_str(text).ok()?;
    let is_whole = number.trunc() == number && number.abs() <= f64::from(i32::MAX);
    let fits = is_whole && !text.contains(char::is_whitespace);
    fits.then_some(number as i32)
}

fn syntax(error: &serde_json::Error, text: &str) -> String {
    if error.classify() == Category::Eof {
        return "unexpected EOF".to_owned();
    }
    let before: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (before + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let start = text[..at].rfind(is_delimiter);
    let begun = start.map_or(0, |start| start + 1);
    let place = place(text, begun);
    let token = token(text, begun);
    format!("syntax error ({place}): invalid value {token}")
}

fn is_delimiter(c: char) -> bool {
    c.is_ascii_whitespace() || matches!(c, ',' | ':' | '{' | '}' | '[' | ']' | '"')
}

/// What begins there, as far as it is shown.
fn token(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let end = rest[first..]
        .find(is_delimiter)
        .map_or(rest.len(), |end| first + end);
    match rest.starts_with(is_delimiter) {
        true => &rest[..first],
        false => rest[..end].get(..32).unwrap_or(&rest[..end]),
    }
}

/// Where a part of the text begins.
fn offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("line {line}:{column}")
}

/// The members of an object, in order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut access: A,
            ) -> std::result::Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = access.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(resource: &str, owner: &str, seconds: i32) -> Asked {
        Asked {
            resource_id: resource.to_owned(),
            lock_owner: owner.to_owned(),
            expiry_in_seconds: seconds,
        }
    }

    #[test]
    fn fields_may_be_spelled_in_both_ways() {
        for (body, wanted) in [
            ("", Asked::default()),
            ("{}", Asked::default()),
            (
                r#"{"resourceId":"r","lockOwner":"o","expiryInSeconds":2}"#,
                all("r", "o", 2),
            ),
            (
                r#" {"resource_id":"r","lock_owner":"\u006f","expiry_in_seconds":"2"} "#,
                all("r", "o", 2),
            ),
            (
                r#"{"resourceId":null,"expiryInSeconds":1e1,"other":{"a":[1]}}"#,
                all("", "", 10),
            ),
            (r#"{"expiryInSeconds":-2147483648}"#, all("", "", i32::MIN)),
        ] {
            assert_eq!(read(body.as_bytes()), Ok(wanted), "{body}");
        }
    }

    #[test]
    fn words_for_what_is_wrong() {
        for (body, what) in [
            ("{", "unexpected EOF"),
            ("[]", "syntax error (line 1:1): unexpected token ["),
            ("5", "syntax error (line 1:1): unexpected token 5"),
            ("hello", "syntax error (line 1:1): invalid value hello"),
            (
                r#"{"resourceId":5}"#,
                "(line 1:15): invalid value for string field resourceId: 5",
            ),
            (
                "{\n\"expiryInSeconds\":2.5}",
                "(line 2:19): invalid value for int32 field expiryInSeconds: 2.5",
            ),
            (
                r#"{"expiryInSeconds":"x"}"#,
                r#"(line 1:20): invalid value for int32 field expiryInSeconds: "x""#,
            ),
            (
                r#"{"expiryInSeconds":99999999999}"#,
                "(line 1:20): invalid value for int32 field expiryInSeconds: 99999999999",
            ),
            (
                r#"{"resourceId":"r","resource_id":"q"}"#,
                r#"(line 1:19): duplicate field "resource_id""#,
            ),
            (
                r#"{"resourceId":"r","lockOwner":"o"} x"#,
                "syntax error (line 1:36): invalid value x",
            ),
            (
                r#" {"resourceId":"r",  "lockOwner":tru}"#,
                "syntax error (line 1:34): invalid value tru",
            ),
        ] {
            assert_eq!(read(body.as_bytes()), Err(what.to_owned()), "{body}");
        }
    }

    proptest! {
        #[test]
        fn prop_never_panics(body in "\\PC{0,20}|\\{(\"(resourceId|expiryInSeconds)\":(1|\"é\"|nul|2.0e300|\\[),?){0,3}\\}?[é \n]?") {
            let _ = read(body.as_bytes());
        }
    }
}
