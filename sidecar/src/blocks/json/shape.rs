//! What a request should look like, and the words of Go's decoder for what
//! does not. <https://pkg.go.dev/encoding/json#UnmarshalTypeError>

use serde_json::value::RawValue;

use super::members::Members;

/// The shape of a value. Names of types are the ones that clients of Dapr read
/// in its errors.
#[derive(Debug)]
pub enum Shape {
    /// Anything.
    Any,
    Text,
    Int,
    List(&'static str, &'static Shape),
    Map(&'static str, &'static Shape),
    /// Its type, with the package, and its fields.
    Struct(&'static str, &'static [Field]),
}

/// A field, whose name may come in any case.
pub type Field = (&'static str, Shape);

/// Metadata of a request or of an item.
pub const PAIRS: Shape = Shape::Map("map[string]string", &Shape::Text);

impl Shape {
    fn name(&self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Int => "int",
            Self::List(name, _) | Self::Map(name, _) | Self::Struct(name, _) => name,
        }
    }
}

/// The first value, in the order of the text, that has another shape. `text` is
/// JSON.
pub fn mismatch(text: &str, shape: &Shape) -> Option<String> {
    Walk::default().value(text, shape)
}

/// The way to a value.
#[derive(Default)]
struct Walk {
    /// The innermost struct.
    inside: &'static str,
    fields: Vec<&'static str>,
}

impl Walk {
    fn value(&mut self, text: &str, shape: &Shape) -> Option<String> {
        let text = text.trim_ascii();
        let kind = match text.as_bytes().first()? {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            b'n' => return None,
            _ => "number",
        };
        match (shape, kind) {
            (Shape::Any, _) | (Shape::Text, "string") => None,
            (Shape::Int, "number") => {
                let fits = text.parse::<i64>().is_ok();
                (!fits).then(|| self.wrong(&format!("number {text}"), shape))
            }
            (Shape::List(_, item), "array") => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                let mut items = items.into_iter();
                items.find_map(|value| self.value(value.get(), item))
            }
            (Shape::Map(_, value), "object") => {
                let Members(members) = serde_json::from_str(text).ok()?;
                let mut members = members.into_iter();
                members.find_map(|(_, given)| self.value(given.get(), value))
            }
            (Shape::Struct(name, fields), "object") => {
                let Members(members) = serde_json::from_str(text).ok()?;
                let outside = std::mem::replace(&mut self.inside, unqualified(name));
                let mut members = members.into_iter();
                let found = members.find_map(|(name, given)| self.field(&name, given, fields));
                self.inside = outside;
                found
            }
            _ => Some(self.wrong(kind, shape)),
        }
    }

    fn field(&mut self, name: &str, given: &RawValue, fields: &'static [Field]) -> Option<String> {
        let mut known = fields.iter();
        let (name, shape) = known.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        self.fields.push(name);
        let found = self.value(given.get(), shape);
        self.fields.pop();
        found
    }

    fn wrong(&self, kind: &str, shape: &Shape) -> String {
        let name = shape.name();
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {kind} into Go value of type {name}");
        }
        let (inside, path) = (self.inside, self.fields.join("."));
        format!("json: cannot unmarshal {kind} into Go struct field {inside}.{path} of type {name}")
    }
}

fn unqualified(name: &'static str) -> &'static str {
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: Shape = Shape::Struct(
        "state.SetRequest",
        &[
            ("key", Shape::Text),
            ("value", Shape::Any),
            ("metadata", PAIRS),
            (
                "options",
                Shape::Struct("state.SetStateOption", &[("Concurrency", Shape::Text)]),
            ),
            ("parallelism", Shape::Int),
        ],
    );
    const LIST: Shape = Shape::List("[]state.SetRequest", &ITEM);

    #[test]
    fn what_fits() {
        for text in [
            "null",
            "[]",
            "[null]",
            r#"[{"KEY":"a","value":[1],"metadata":null,"other":1,"parallelism":-5}]"#,
        ] {
            assert_eq!(mismatch(text, &LIST), None, "{text}");
        }
    }

    #[test]
    fn what_does_not_is_named_by_its_place() {
        for (text, says) in [
            ("{}", "object into Go value of type []state.SetRequest"),
            (" 1", "number into Go value of type []state.SetRequest"),
            ("[1]", "number into Go value of type state.SetRequest"),
            (
                r#"[{"key":1,"metadata":2}]"#,
                "number into Go struct field SetRequest.key of type string",
            ),
            (
                r#"[{"metadata":[]}]"#,
                "array into Go struct field SetRequest.metadata of type map[string]string",
            ),
            (
                r#"[{"metadata":{"a":true}}]"#,
                "bool into Go struct field SetRequest.metadata of type string",
            ),
            (
                r#"[{"options":{"concurrency":1}}]"#,
                "number into Go struct field SetStateOption.options.Concurrency of type string",
            ),
            (
                r#"[{"parallelism":1.5}]"#,
                "number 1.5 into Go struct field SetRequest.parallelism of type int",
            ),
        ] {
            let says = format!("json: cannot unmarshal {says}");
            assert_eq!(mismatch(text, &LIST), Some(says), "{text}");
        }
    }
}
