//! Data as conditions see it.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use serde_json::Value as Json;

/// Numbers are floats, as in other JSON that the language is used on, except
/// for whole numbers that a float cannot hold: these keep their digits.
pub fn of_json(value: Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(bool),
        Json::Number(number) => of_number(&number),
        Json::String(string) => text(string),
        Json::Array(items) => Value::List(Arc::new(items.into_iter().map(of_json).collect())),
        Json::Object(object) => {
            let map: HashMap<Key, Value> = object
                .into_iter()
                .map(|(key, value)| (Key::from(key), of_json(value)))
                .collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

fn of_number(number: &serde_json::Number) -> Value {
    let float = number.as_f64().unwrap_or_default();
    let exact = |whole: i128| float as i128 == whole;
    match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) if !exact(whole.into()) => Value::Int(whole),
        (None, Some(whole)) if !exact(whole.into()) => Value::UInt(whole),
        _ => Value::Float(float),
    }
}

pub fn text(text: String) -> Value {
    Value::String(Arc::new(text))
}
