//! Messages as JSON, by the rules of protobuf:
//! <https://protobuf.dev/programming-guides/json/>. Only those of the files
//! that `build.rs` lists have descriptors here.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/in_json.bin"));
    DescriptorPool::decode(&bytes[..]).ok()
});

/// The package of the messages that are named here.
const PACKAGE: &str = "dapr.proto.runtime.v1";

fn descriptor(name: &str) -> Result<MessageDescriptor, String> {
    let pool = POOL.as_ref();
    let found = pool.and_then(|pool| pool.get_message_by_name(&format!("{PACKAGE}.{name}")));
    found.ok_or_else(|| format!("message {name} has no JSON form"))
}

/// Reads the message of this name in the package of the API. Fields that it
/// does not have are ignored.
pub fn read<M: Message + Default>(name: &str, text: &[u8]) -> Result<M, String> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut json = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(descriptor(name)?, &mut json, &options)
        .map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// Writes the message of this name. Fields with their default value are left
/// out.
pub fn write<M: Message>(name: &str, message: &M) -> Result<Vec<u8>, String> {
    let mut dynamic = DynamicMessage::new(descriptor(name)?);
    dynamic
        .transcode_from(message)
        .map_err(|error| error.to_string())?;
    serde_json::to_vec(&dynamic).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::v1 as wire;

    fn request(text: &str) -> Result<wire::ConversationRequestAlpha2, String> {
        read("ConversationRequestAlpha2", text.as_bytes())
    }

    #[test]
    fn fields_have_their_names_of_json_and_of_the_file() {
        for text in [
            r#"{"contextId":"c","maxTokens":"7","promptCacheRetention":"60s","new":[{}]}"#,
            r#"{"context_id":"c","max_tokens":7,"prompt_cache_retention":"60.0s"}"#,
        ] {
            let read = request(text).expect("is valid");
            assert_eq!(read.context_id.as_deref(), Some("c"), "{text}");
            assert_eq!(read.max_tokens, Some(7));
            assert_eq!(read.prompt_cache_retention.expect("is there").seconds, 60);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"name":1}"#,
            "{}{}",
            r#"{"scrubPii":"yes"}"#,
        ] {
            assert!(request(text).is_err(), "{text}");
        }
        let deep = format!("{{\"responseFormat\":{{\"a\":{}", "[".repeat(100_000));
        assert!(request(&deep).is_err());
        assert!(read::<wire::ConversationRequest>("NoSuchMessage", b"{}").is_err());
    }

    #[test]
    fn numbers_of_64_bits_are_text_and_defaults_are_left_out() {
        let usage = wire::ConversationResultAlpha2CompletionUsage {
            completion_tokens: 8,
            ..Default::default()
        };
        let text = write("ConversationResultAlpha2CompletionUsage", &usage);
        assert_eq!(text.expect("writes"), br#"{"completionTokens":"8"}"#);
    }

    #[test]
    fn parameters_are_messages_of_any_known_type() {
        let text = r#"{"parameters":{"p":{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"v"}}}"#;
        let read = request(text).expect("is valid");
        assert!(read.parameters["p"].type_url.ends_with("StringValue"));
        assert!(request(r#"{"parameters":{"p":{"@type":"x/no.such.Type"}}}"#).is_err());
    }
}
