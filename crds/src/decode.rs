//! From a JSON tree to a type, the way resources have always been read: what is missing or null gets its zero
//! value, and a number or boolean where text is wanted becomes text. An error names the field.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

/// Decodes a tree.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

/// Decodes JSON text, such as the operator sends.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let value: Value =
        serde_json::from_slice(json).map_err(|error| Error::new(error.to_string()))?;
    from_value(&value)
}

/// A number in the shortest form, as it appears in a property's text: `1`, `1.5`, `1e+06`.
pub fn number_text(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => float.to_string(),
    }
}

/// What did not fit, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Innermost first.
    path: Vec<Step>,
    message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            message: message.into(),
        }
    }

    fn at(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// The field, such as `spec.metadata[0].name`; empty for the document itself.
    pub fn field(&self) -> String {
        let mut field = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Key(key) if field.is_empty() => field.push_str(key),
                Step::Key(key) => {
                    field.push('.');
                    field.push_str(key);
                }
                Step::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        field
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{}: ", self.field())?;
        }
        out.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

struct Lenient<'de>(&'de Value);

impl<'de> Lenient<'de> {
    /// Deserialises as serde_json does.
    fn strict<T>(
        self,
        read: impl FnOnce(&'de Value) -> Result<T, serde_json::Error>,
    ) -> Result<T, Error> {
        read(self.0).map_err(|error| Error::new(error.to_string()))
    }
}

macro_rules! zero_for_null {
    ($($method:ident $visit:ident $zero:expr,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                _ => self.strict(|value| value.$method(visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Object(members) => visitor.visit_map(Members::of(members, true)),
            _ => self.strict(|value| value.deserialize_any(visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            Value::Bool(value) => visitor.visit_str(if *value { "true" } else { "false" }),
            Value::Number(value) => visitor.visit_string(number_text(value)),
            value => value
                .deserialize_str(visitor)
                .map_err(|error| Error::new(error.to_string())),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items {
                items: &[],
                next: 0,
            }),
            Value::Array(_) => self.deserialize_any(visitor),
            _ => self.strict(|value| value.deserialize_seq(visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Members::none()),
            Value::Object(members) => visitor.visit_map(Members::of(members, false)),
            _ => self.strict(|value| value.deserialize_map(visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members {
                fields,
                ..Members::of(members, false)
            }),
            Value::Null => visitor.visit_map(Members::none()),
            // A sequence would be taken for the fields in their order.
            Value::Array(_) => Err(Error::new(format!(
                "invalid type: sequence, expected a map of {}",
                fields.join(", ")
            ))),
            _ => self.strict(|value| value.deserialize_struct(name, fields, visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.strict(|value| value.deserialize_enum(name, variants, visitor))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    zero_for_null! {
        deserialize_bool visit_bool false,
        deserialize_i8 visit_i8 0,
        deserialize_i16 visit_i16 0,
        deserialize_i32 visit_i32 0,
        deserialize_i64 visit_i64 0,
        deserialize_u8 visit_u8 0,
        deserialize_u16 visit_u16 0,
        deserialize_u32 visit_u32 0,
        deserialize_u64 visit_u64 0,
        deserialize_f32 visit_f32 0.0,
        deserialize_f64 visit_f64 0.0,
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de> {
    items: &'de [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Lenient(item))
            .map(Some)
            .map_err(|error| error.at(Step::Index(index)))
    }
}

struct Members<'de> {
    members: Option<serde_json::map::Iter<'de>>,
    /// Whether members that are null are kept, for untyped values. In a type they are skipped, so that the field
    /// keeps its zero value.
    keep_null: bool,
    /// Of a type. A key that differs from a field in case only means that field, as
    /// in Go's programs.
    fields: &'static [&'static str],
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> Members<'de> {
    fn of(members: &'de Map<String, Value>, keep_null: bool) -> Self {
        Self {
            members: Some(members.iter()),
            keep_null,
            fields: &[],
            current: None,
        }
    }

    fn none() -> Self {
        Self {
            members: None,
            keep_null: false,
            fields: &[],
            current: None,
        }
    }
}

impl Members<'_> {
    /// The field that a key means.
    fn field<'a>(&self, key: &'a str) -> &'a str {
        if self.fields.contains(&key) {
            return key;
        }
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.eq_ignore_ascii_case(key))
            .copied()
            .unwrap_or(key)
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let keep_null = self.keep_null;
        let next = self
            .members
            .as_mut()
            .and_then(|members| members.find(|(_, value)| keep_null || !value.is_null()));
        let Some((key, value)) = next else {
            return Ok(None);
        };
        self.current = Some((key, value));
        let name = self.field(key);
        seed.deserialize(IntoDeserializer::<Error>::into_deserializer(name))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self.current.take().unwrap_or(("", &Value::Null));
        seed.deserialize(Lenient(value))
            .map_err(|error| error.at(Step::Key(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Outer {
        text: String,
        number: i32,
        flag: Option<bool>,
        inner: Vec<Inner>,
        raw: Value,
    }

    #[test]
    fn keys_match_fields_in_any_case() {
        let outer: Outer = from_value(&json!({"TEXT": "a", "Inner": [{"nAme": "b"}]})).unwrap();
        assert_eq!(
            (outer.text.as_str(), outer.inner[0].name.as_str()),
            ("a", "b")
        );
        let raw: Outer = from_value(&json!({"raw": {"TEXT": 1}})).unwrap();
        assert_eq!(raw.raw, json!({"TEXT": 1}));
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Inner {
        name: String,
    }

    fn read(value: Value) -> Result<Outer, String> {
        from_value(&value).map_err(|error| error.to_string())
    }

    #[test]
    fn scalars_become_text() {
        for (value, text) in [
            (json!(123), "123"),
            (json!(true), "true"),
            (json!(1.5), "1.5"),
            (json!(1.0), "1"),
            (json!(1e30), "1e+30"),
            (json!(0.00001), "1e-05"),
            (json!("x"), "x"),
            (Value::Null, ""),
        ] {
            assert_eq!(read(json!({"text": value})).unwrap().text, text, "{value}");
        }
    }

    #[test]
    fn null_is_the_zero_value_and_is_kept_in_untyped_values() {
        let outer = read(
            json!({"text": null, "number": null, "inner": null, "raw": {"a": null}, "flag": null}),
        )
        .unwrap();
        assert_eq!(
            outer,
            Outer {
                raw: json!({"a": null}),
                ..Outer::default()
            }
        );
    }

    #[test]
    fn an_error_names_the_field() {
        for (value, text) in [
            (
                json!({"inner": [{"name": "a"}, {"name": ["b"]}]}),
                "inner[1].name: invalid type: sequence, expected a string",
            ),
            (
                json!({"number": "1"}),
                "number: invalid type: string \"1\", expected i32",
            ),
            (
                json!({"inner": [[]]}),
                "inner[0]: invalid type: sequence, expected a map of name",
            ),
            (
                json!([]),
                "invalid type: sequence, expected a map of text, number, flag, inner, raw",
            ),
        ] {
            assert_eq!(read(value).unwrap_err(), text);
        }
    }
}
