use anyhow::{Context, Result, ensure};
use dapr::client::{
    ConversationInputAlpha2Builder, ConversationRequestAlpha2Builder, DecryptRequestOptions,
    EncryptRequestOptions, ReaderStream,
};
use dapr::dapr::proto::runtime::v1::conversation_message::MessageTypes;
use dapr::dapr::proto::runtime::v1::conversation_tool_calls::ToolTypes;
use dapr::dapr::proto::runtime::v1::conversation_tools::ToolTypes as Tool;
use dapr::dapr::proto::runtime::v1::unlock_response::Status;
use dapr::dapr::proto::runtime::v1::{
    ConversationMessage, ConversationMessageContent, ConversationMessageOfAssistant,
    ConversationMessageOfTool, ConversationMessageOfUser, ConversationResultChoices,
    ConversationTools, ConversationToolsFunction, TryLockRequest, UnlockRequest,
};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::app::{App, TICK};
use crate::servers::redis;
use crate::sidecar::{Client, Setup, component, map, refused, until, within};

fn with(part: String) -> Setup {
    Setup {
        parts: vec![part],
        ..Setup::default()
    }
}

#[tokio::test]
async fn output_binding() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = format!("{{name: rootPath, value: {:?}}}", folder.path());
    let files = component("files", "bindings.localstorage", &root);
    let (_sidecar, mut client) = with(files).ready().await?;
    let mut invoke = async |operation: &str, data: &str| {
        let name = Some(map(&[("fileName", "a.txt")]));
        let data = data.as_bytes().to_vec();
        client.invoke_binding("files", data, operation, name).await
    };
    invoke("create", "hello").await?;
    let file = folder.path().join("a.txt");
    assert_eq!(std::fs::read_to_string(&file)?, "hello");
    assert_eq!(invoke("get", "").await?.data, b"hello");
    invoke("delete", "").await?;
    assert!(!file.exists());
    refused(invoke("paint", "").await, "Internal", "files");
    Ok(())
}

#[tokio::test]
async fn input_binding() -> Result<()> {
    let schedule = r#"{name: schedule, value: "@every 100ms"}"#;
    let mut app = App::with(with(component(TICK, "bindings.cron", schedule))).await?;
    for _ in 0..2 {
        let call = within("it ticks", app.calls.recv()).await?;
        assert_eq!(call.context("an end")?.0, TICK);
    }
    Ok(())
}

#[tokio::test]
async fn configuration() -> Result<()> {
    let redis = redis().await?;
    let settings = component("settings", "configuration.redis", &redis.address);
    let (_sidecar, mut client) = with(settings).ready().await?;
    redis.set("colour", "green||7").await?;
    redis.set("size", "large").await?;
    let keys = vec!["colour", "size", "absent"];
    let items = client
        .get_configuration("settings", keys, None)
        .await?
        .items;
    assert_eq!(items.len(), 2);
    assert_eq!(items["colour"].value, "green");
    assert_eq!(items["colour"].version, "7");
    assert_eq!(items["size"].value, "large");

    let keys = vec!["colour"];
    let mut changes = client
        .subscribe_configuration("settings", keys, None)
        .await?;
    let first = within("the subscription begins", changes.message()).await??;
    let watch = first.context("an end")?.id;
    redis.set("size", "small").await?;
    redis.set("colour", "red||8").await?;
    let item = loop {
        let change = within("the colour changes", changes.message()).await??;
        let mut items = change.context("an end")?.items;
        let item = items.remove("colour").context("no colour")?;
        assert!(items.is_empty(), "{items:?}");
        if item.value == "red" {
            break item;
        }
    };
    assert_eq!(item.version, "8");
    let ended = client.unsubscribe_configuration("settings", &watch).await?;
    assert!(ended.ok, "{}", ended.message);
    let nowhere = client.get_configuration("nowhere", vec!["k"], None).await;
    refused(nowhere, "InvalidArgument", "nowhere");
    Ok(())
}

/// The SDK wraps no locks: its generated client has them.
#[tokio::test]
async fn locks() -> Result<()> {
    let redis = redis().await?;
    let locks = component("locks", "lock.redis", &redis.address);
    let (sidecar, _) = with(locks).ready().await?;
    let client = sidecar.generated().await?;
    let take = async |owner: &str, seconds| {
        let request = TryLockRequest {
            store_name: "locks".to_owned(),
            resource_id: "door".to_owned(),
            lock_owner: owner.to_owned(),
            expiry_in_seconds: seconds,
        };
        let answer = client.clone().try_lock_alpha1(request).await?;
        anyhow::Ok(answer.into_inner().success)
    };
    let give = async |owner: &str| {
        let request = UnlockRequest {
            store_name: "locks".to_owned(),
            resource_id: "door".to_owned(),
            lock_owner: owner.to_owned(),
        };
        let answer = client.clone().unlock_alpha1(request).await?;
        anyhow::Ok(answer.into_inner().status())
    };
    assert!(take("ada", 60).await?);
    assert!(!take("bob", 60).await?);
    assert_eq!(give("bob").await?, Status::LockBelongsToOthers);
    assert_eq!(give("ada").await?, Status::Success);
    assert_eq!(give("ada").await?, Status::LockDoesNotExist);
    assert!(take("ada", 1).await?);
    let taken = || async { take("bob", 60).await.is_ok_and(|taken| taken).then_some(()) };
    until("the lock expires", taken).await
}

#[tokio::test]
async fn cryptography() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, letter) in [("one.json", "A"), ("two.json", "B")] {
        let key = format!(r#"{{"kty": "oct", "k": "{}A"}}"#, letter.repeat(42));
        std::fs::write(folder.path().join(name), key)?;
    }
    let path = format!("{{name: path, value: {:?}}}", folder.path());
    let vault = component("vault", "crypto.dapr.localstorage", &path);
    let (_sidecar, mut client) = with(vault).ready().await?;
    let how = |key: &str| EncryptRequestOptions {
        component_name: "vault".to_owned(),
        key_name: key.to_owned(),
        key_wrap_algorithm: "A256KW".to_owned(),
        data_encryption_cipher: "aes-gcm".to_owned(),
        ..EncryptRequestOptions::default()
    };
    let open = |key: &str| DecryptRequestOptions {
        component_name: "vault".to_owned(),
        key_name: key.to_owned(),
    };
    // In one part: the SDK does not count the parts that it sends.
    let plain: Vec<u8> = (0..4000_u32).map(|n| n as u8).collect();
    let secret = client
        .encrypt(ReaderStream::new(&plain[..]), how("one.json"))
        .await?;
    assert_eq!(client.decrypt(secret.clone(), open("")).await?, plain);
    // The SDK keeps the error of a stream that has begun to itself.
    let other = client.decrypt(secret.clone(), open("two.json")).await;
    assert!(other.unwrap_or_default().is_empty());
    let mut changed = secret;
    let byte = changed.last_mut().and_then(|part| part.data.last_mut());
    *byte.context("nothing is encrypted")? ^= 1;
    let changed = client.decrypt(changed, open("")).await;
    assert!(changed.unwrap_or_default().is_empty());
    let absent = ReaderStream::new(&plain[..]);
    let absent = client.encrypt(absent, how("absent.json")).await;
    assert!(absent.unwrap_or_default().is_empty());
    Ok(())
}

fn said(text: &str) -> Vec<ConversationMessageContent> {
    vec![ConversationMessageContent {
        text: text.to_owned(),
    }]
}

fn message(kind: MessageTypes) -> ConversationMessage {
    ConversationMessage {
        message_types: Some(kind),
    }
}

fn object(name: &str, value: Kind) -> Struct {
    Struct {
        fields: [(name.to_owned(), Value { kind: Some(value) })].into(),
    }
}

async fn converse(
    client: &mut Client,
    messages: Vec<ConversationMessage>,
    tools: Vec<ConversationTools>,
) -> Result<ConversationResultChoices> {
    let input = ConversationInputAlpha2Builder::new(messages).build();
    let request = ConversationRequestAlpha2Builder::new("parrot", vec![input])
        .with_tools(tools)
        .build();
    let answer = client.converse_alpha2(request).await?;
    let mut outputs = answer.outputs.into_iter();
    let mut choices = outputs.next().context("no output")?.choices.into_iter();
    ensure!(outputs.next().is_none(), "several outputs");
    choices.next().context("no choice")
}

#[tokio::test]
async fn conversation() -> Result<()> {
    let parrot = component("parrot", "conversation.echo", "");
    let (_sidecar, mut client) = with(parrot).ready().await?;
    let question = message(MessageTypes::OfUser(ConversationMessageOfUser {
        content: said("what is the weather?"),
        ..ConversationMessageOfUser::default()
    }));
    let city = Kind::StructValue(object("city", Kind::StructValue(Struct::default())));
    let tools = vec![ConversationTools {
        tool_types: Some(Tool::Function(ConversationToolsFunction {
            name: "weather".to_owned(),
            parameters: Some(object("properties", city)),
            ..ConversationToolsFunction::default()
        })),
    }];
    let choice = converse(&mut client, vec![question.clone()], tools).await?;
    assert_eq!(choice.finish_reason, "tool_calls");
    let calls = choice.message.context("no message")?.tool_calls;
    let Some(ToolTypes::Function(function)) = &calls[0].tool_types else {
        anyhow::bail!("no function in {calls:?}");
    };
    assert_eq!(function.name, "weather");
    assert_eq!(function.arguments, "city");

    // The conversation goes on with what the tool said.
    let id = calls[0].id.clone();
    let assistant = message(MessageTypes::OfAssistant(ConversationMessageOfAssistant {
        tool_calls: calls.clone(),
        ..ConversationMessageOfAssistant::default()
    }));
    let tool = message(MessageTypes::OfTool(ConversationMessageOfTool {
        tool_id: id,
        name: "weather".to_owned(),
        content: said("sunny"),
    }));
    let choice = converse(&mut client, vec![question, assistant, tool], Vec::new()).await?;
    let content = choice.message.context("no message")?.content;
    assert!(content.contains("sunny"), "{content}");
    Ok(())
}
