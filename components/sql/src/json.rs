//! Values as the servers keep them: JSON, with bytes as text in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outrider_components::Error;
use outrider_components::state::Value;

/// A value as JSON, and whether it is bytes.
pub fn text(value: &Value) -> Result<(String, bool), Error> {
    match value {
        // Nothing in base64 has to be escaped.
        Value::Binary(bytes) => Ok((format!("\"{}\"", STANDARD.encode(bytes)), true)),
        Value::Json(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok((text.to_owned(), false)),
            Err(_) => Err(Error::invalid("a JSON value has to be UTF-8")),
        },
    }
}

/// The bytes of a JSON string in base64.
pub fn bytes(json: &[u8]) -> Result<Bytes, Error> {
    let text: String = serde_json::from_slice(json).map_err(|error| {
        Error::internal(format!("failed to unmarshal JSON data: {error}")).because(error)
    })?;
    let bytes = STANDARD.decode(text).map_err(|error| {
        Error::internal(format!("failed to decode base64 data: {error}")).because(error)
    })?;
    Ok(bytes.into())
}
