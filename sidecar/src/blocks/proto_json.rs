//! Protobuf messages in JSON: requests and answers of the HTTP API, and the
//! messages that stand for JSON of any kind.
//! <https://protobuf.dev/programming-guides/json/>

use http::{Response, StatusCode};
use outrider_net::body::Body;
use outrider_proto::json;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Any};
use serde_json::{Map, Value};

use super::error::{Error, Result, body_read, malformed};
use super::http::{self as api, Request};

/// The message of this name in a body; one without a body has no fields set.
pub async fn read<M: Message + Default>(mut request: Request, name: &str) -> Result<M> {
    let body = request.bytes().await.map_err(body_read)?;
    if body.is_empty() {
        return Ok(M::default());
    }
    json::read(name, &body)
        .map_err(|cause| malformed(format!("failed deserializing HTTP body: {cause}")))
}

/// Answers with the message of this name, or with the error.
pub fn answer<M: Message>(name: &str, answered: Result<M>) -> Response<Body> {
    let written = answered.and_then(|message| {
        json::write(name, &message).map_err(|cause| {
            Error::legacy(
                "ERROR",
                StatusCode::INTERNAL_SERVER_ERROR,
                tonic::Code::Internal,
                format!("failed to encode the answer: {cause}"),
            )
        })
    });
    match written {
        Ok(text) => api::json(StatusCode::OK, text),
        Err(error) => error.into(),
    }
}

/// JSON of any kind as a message.
pub fn to_message(json: Value) -> Any {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(to_message).collect(),
        }),
        Value::Object(members) => {
            let members = members.into_iter();
            Kind::StructValue(Struct {
                fields: members.map(|(name, it)| (name, to_message(it))).collect(),
            })
        }
    };
    Any { kind: Some(kind) }
}

/// A message as the JSON that it stands for. Decoding has bounded how deep it is.
pub fn of_message(message: Any) -> Value {
    match message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(truth)) => Value::Bool(truth),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::NumberValue(number)) => of_number(number),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(of_message).collect(),
        Some(Kind::StructValue(members)) => Value::Object(of_struct(members)),
    }
}

pub fn of_struct(message: Struct) -> Map<String, Value> {
    let members = message.fields.into_iter();
    members.map(|(name, it)| (name, of_message(it))).collect()
}

/// Whole numbers have no fraction: a schema's `maxLength` of 10.0 would be
/// refused.
fn of_number(number: f64) -> Value {
    /// Up to here every whole number is one of 64 bits too.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Value::from(number as i64);
    }
    serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_a_schema_stay_whole() {
        assert_eq!(of_number(10.0).to_string(), "10");
        assert_eq!(of_number(-0.5).to_string(), "-0.5");
        assert_eq!(of_number(1e300).to_string(), "1e+300");
        assert_eq!(of_number(f64::NAN), Value::Null);
    }
}
