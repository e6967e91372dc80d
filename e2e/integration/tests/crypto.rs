use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request};
use http_body_util::Full;
use outrider_harness::http::Answer;
use outrider_harness::{Builder, Daprd, wait};
use outrider_proto::common::v1::StreamPayload;
use outrider_proto::runtime::v1::{
    DecryptRequest, DecryptRequestOptions, EncryptRequest, EncryptRequestOptions,
    SubtleEncryptRequest,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::{Code, Status};

const ENCRYPT: &str = "/v1.0-alpha1/crypto/keys/encrypt";
const DECRYPT: &str = "/v1.0-alpha1/crypto/keys/decrypt";
/// 32 bytes.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn component(folder: &TempDir) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: keys}}\nspec: {{type: crypto.dapr.localstorage, version: v1, metadata: [{{name: path, value: '{}'}}]}}\n",
        folder.path().display()
    )
}

/// A sidecar with a folder of keys, of which one is called `key`.
fn keys() -> Result<(TempDir, Builder)> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("key"), KEY)?;
    let builder = Daprd::builder().resource(&component(&folder));
    Ok((folder, builder))
}

async fn put(daprd: &Daprd, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    let mut request = Request::builder().method(Method::PUT).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body));
    daprd.http().send(request.body(body)?).await
}

const WRAPPED: [(&str, &str); 2] = [("dapr-key-name", "key"), ("dapr-key-wrap-algorithm", "aes")];

fn options() -> EncryptRequestOptions {
    EncryptRequestOptions {
        component_name: "keys".to_owned(),
        key_name: "key".to_owned(),
        key_wrap_algorithm: "A256KW".to_owned(),
        ..Default::default()
    }
}

fn piece(seq: u64, data: impl Into<Bytes>) -> Option<StreamPayload> {
    let data = data.into();
    Some(StreamPayload { data, seq })
}

/// Encrypts over gRPC what these messages say.
async fn encrypt(daprd: &Daprd, messages: Vec<EncryptRequest>) -> Result<Result<Vec<u8>, Status>> {
    let mut grpc = daprd.grpc().await?;
    let mut answers = match grpc.encrypt_alpha1(stream::iter(messages)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    let mut all = Vec::new();
    let mut seq = 0;
    loop {
        match answers.message().await {
            Ok(Some(message)) => {
                let payload = message.payload.context("no payload")?;
                assert_eq!(payload.seq, seq);
                seq += 1;
                all.extend_from_slice(&payload.data);
            }
            Ok(None) => return Ok(Ok(all)),
            Err(status) => return Ok(Err(status)),
        }
    }
}

#[tokio::test]
async fn what_one_protocol_encrypts_the_other_decrypts() -> Result<()> {
    let (_folder, builder) = keys()?;
    let daprd = builder.start().await?;
    let text: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    let cipher = ("dapr-data-encryption-cipher", "chacha20-poly1305");
    let headers = [WRAPPED[0], WRAPPED[1], cipher];
    let document = put(&daprd, ENCRYPT, &headers, &text).await?;
    assert_eq!(document.status, 200, "{}", document.text());
    assert_eq!(
        document.header("content-type"),
        Some("application/octet-stream")
    );
    assert!(
        document
            .body
            .starts_with(b"dapr.io/enc/v1\n{\"k\":\"key\",\"kw\":1,")
    );
    let back = put(&daprd, DECRYPT, &[], &document.body).await?;
    assert_eq!((back.status, &back.body[..]), (200, &text[..]));

    let mut grpc = daprd.grpc().await?;
    let first = DecryptRequest {
        options: Some(DecryptRequestOptions {
            component_name: "keys".to_owned(),
            ..Default::default()
        }),
        payload: None,
    };
    let pieces = document.body.chunks(9_999).enumerate();
    let pieces = pieces.map(|(seq, data)| DecryptRequest {
        options: None,
        payload: piece(seq as u64, data.to_vec()),
    });
    let messages: Vec<_> = std::iter::once(first).chain(pieces).collect();
    let mut answers = grpc
        .decrypt_alpha1(stream::iter(messages))
        .await?
        .into_inner();
    let mut back = Vec::new();
    while let Some(message) = answers.message().await? {
        back.extend_from_slice(&message.payload.context("no payload")?.data);
    }
    assert_eq!(back, text);

    let first = EncryptRequest {
        options: Some(options()),
        payload: piece(0, "hello, "),
    };
    let second = EncryptRequest {
        options: None,
        payload: piece(1, "there"),
    };
    let document = encrypt(&daprd, vec![first, second]).await??;
    let back = put(&daprd, DECRYPT, &[], &document).await?;
    assert_eq!((back.status, back.text().as_str()), (200, "hello, there"));
    let empty = put(&daprd, ENCRYPT, &WRAPPED, b"").await?;
    let back = put(&daprd, DECRYPT, &[], &empty.body).await?;
    assert_eq!((back.status, back.text().as_str()), (200, ""));

    let metrics = outrider_harness::http::Client::new(daprd.metrics_port());
    let metrics = metrics.get("/metrics").await?.text();
    let counted = r#"dapr_component_crypto_count{app_id="app",component="keys",namespace="",operation="crypto_op",success="true"} 7"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_an_answer_before_anything_of_a_document_is() -> Result<()> {
    let (_folder, builder) = keys()?;
    let daprd = builder.start().await?;
    let header = |name, value| [WRAPPED[0], WRAPPED[1], (name, value)];
    let failed = |cause: &str| format!("failed to perform operation: {cause}");
    let mut document = put(&daprd, ENCRYPT, &WRAPPED, b"hello")
        .await?
        .body
        .to_vec();
    if let Some(last) = document.last_mut() {
        *last ^= 1;
    }
    let no_key = [("dapr-key-name", "nowhere"), WRAPPED[1]];
    for (path, headers, body, status, code, message) in [
        (
            ENCRYPT,
            &WRAPPED[1..],
            &b"x"[..],
            400,
            "ERR_BAD_REQUEST",
            "invalid request: missing header 'dapr-key-name'".to_owned(),
        ),
        (
            ENCRYPT,
            &WRAPPED[..1],
            b"x",
            400,
            "ERR_BAD_REQUEST",
            "invalid request: missing header 'dapr-key-wrap-algorithm'".to_owned(),
        ),
        (
            ENCRYPT,
            &header("dapr-data-encryption-cipher", "rot")[..],
            b"x",
            500,
            "ERR_CRYPTO",
            failed("option Cipher is not valid: cipher ROT is not supported"),
        ),
        (
            ENCRYPT,
            &no_key[..],
            b"x",
            500,
            "ERR_CRYPTO",
            failed(
                "failed to wrap the file key: failed to retrieve the key encryption key: failed to load key 'nowhere': no such file",
            ),
        ),
        (
            DECRYPT,
            &[][..],
            b"xyz",
            500,
            "ERR_CRYPTO",
            failed("invalid header: scheme name not found"),
        ),
        (
            DECRYPT,
            &no_key[..1],
            &document,
            500,
            "ERR_CRYPTO",
            failed("failed to validate the document's signature"),
        ),
        (
            DECRYPT,
            &[][..],
            &document,
            500,
            "ERROR",
            "error processing segment 0: failed to decrypt segment".to_owned(),
        ),
        (
            "/v1.0-alpha1/crypto/none/encrypt",
            &[][..],
            b"x",
            400,
            "ERR_CRYPTO_PROVIDER_NOT_FOUND",
            "crypto provider none not found".to_owned(),
        ),
    ] {
        let answer = put(&daprd, path, headers, body).await?;
        assert_eq!(answer.error()?, (code.to_owned(), message));
        assert_eq!(answer.status, status, "{code}");
    }
    let post = daprd.http().post(DECRYPT, &json!(1)).await?;
    assert_eq!(post.status, 404, "{}", post.text());
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_ends_with_its_status() -> Result<()> {
    let (_folder, builder) = keys()?;
    let daprd = builder.start().await?;
    let message =
        |options: Option<EncryptRequestOptions>, payload| EncryptRequest { options, payload };
    let without = |change: fn(&mut EncryptRequestOptions)| {
        let mut options = options();
        change(&mut options);
        vec![message(Some(options), piece(0, "x"))]
    };
    let begin = || message(Some(options()), piece(0, "x"));
    for (messages, code, wanted) in [
        (
            vec![],
            Code::Internal,
            "failed to perform operation: error receiving the first message: EOF",
        ),
        (
            vec![message(None, piece(0, "x"))],
            Code::InvalidArgument,
            "invalid request: first message does not contain the required options",
        ),
        (
            without(|options| options.key_name.clear()),
            Code::InvalidArgument,
            "invalid request: missing property 'keyName' in the options message",
        ),
        (
            without(|options| options.key_wrap_algorithm.clear()),
            Code::InvalidArgument,
            "invalid request: missing property 'keyWrapAlgorithm' in the options message",
        ),
        (
            without(|options| options.component_name.clear()),
            Code::InvalidArgument,
            "invalid request: missing component name",
        ),
        (
            without(|options| options.component_name = "none".to_owned()),
            Code::InvalidArgument,
            "crypto provider none not found",
        ),
        (
            vec![begin(), message(None, piece(5, "x"))],
            Code::Internal,
            "failed to perform operation: invalid sequence number received: 5 (expected: 1)",
        ),
        (
            vec![begin(), begin()],
            Code::Internal,
            "failed to perform operation: options found in non-leading message",
        ),
    ] {
        let status = encrypt(&daprd, messages).await?.expect_err(wanted);
        assert_eq!((status.code(), status.message()), (code, wanted));
    }
    // Nobody waits for ever for the first message.
    let mut grpc = daprd.grpc().await?;
    let began = Instant::now();
    let silent = stream::pending::<EncryptRequest>();
    let status = grpc.encrypt_alpha1(silent).await.expect_err("says nothing");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(began.elapsed() < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn a_long_document_streams_through_a_little_memory() -> Result<()> {
    const PIECES: u64 = 192;
    const PIECE: usize = 1 << 20;
    /// Bytes that the sidecar may grow by.
    const GROWTH: u64 = 48 << 20;
    let (_folder, builder) = keys()?;
    let daprd = builder.start().await?;
    put(&daprd, ENCRYPT, &WRAPPED, b"x").await?;
    let before = daprd.memory()?;
    let data = Bytes::from(vec![7; PIECE]);
    let messages = (0..PIECES).map(move |seq| EncryptRequest {
        options: (seq == 0).then(options),
        payload: piece(seq, data.clone()),
    });
    let mut encrypting = daprd.grpc().await?;
    let encrypted = encrypting.encrypt_alpha1(stream::iter(messages)).await?;
    let first = DecryptRequest {
        options: Some(DecryptRequestOptions {
            component_name: "keys".to_owned(),
            ..Default::default()
        }),
        payload: None,
    };
    // What comes out goes in again.
    let state = (Some(first), encrypted.into_inner());
    let messages = stream::unfold(state, async |(first, mut encrypted)| {
        if let Some(first) = first {
            return Some((first, (None, encrypted)));
        }
        let payload = encrypted.message().await.ok()??.payload;
        let message = DecryptRequest {
            options: None,
            payload,
        };
        Some((message, (None, encrypted)))
    });
    let mut decrypting = daprd.grpc().await?;
    let answers = decrypting.decrypt_alpha1(Box::pin(messages)).await?;
    let mut answers = answers.into_inner();
    let (mut size, mut most) = (0, 0);
    while let Some(message) = answers.message().await? {
        let data = message.payload.context("no payload")?.data;
        assert!(data.iter().all(|byte| *byte == 7));
        size += data.len();
        most = most.max(daprd.memory()?);
    }
    assert_eq!(size, PIECES as usize * PIECE);
    let growth = most.saturating_sub(before);
    assert!(growth < GROWTH, "{growth} bytes more than {before}");
    Ok(())
}

#[tokio::test]
async fn single_operations_are_served_over_both_protocols() -> Result<()> {
    let (_folder, builder) = keys()?;
    let daprd = builder.start().await?;
    let call = async |method: &str, body: Value| -> Result<Value> {
        let path = format!("/v1.0-alpha1/subtlecrypto/keys/{method}");
        daprd.http().post(&path, &body).await?.json()
    };
    // "hello" and twelve zeros.
    let with = |more: Value| {
        let mut body =
            json!({"algorithm": "A256GCM", "keyName": "key", "nonce": "AAAAAAAAAAAAAAAA"});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    let sealed = call("encrypt", with(json!({"plaintext": "aGVsbG8="}))).await?;
    let opened = call("decrypt", with(sealed.clone())).await?;
    assert_eq!(opened, json!({"plaintext": "aGVsbG8="}));
    let mut grpc = daprd.grpc().await?;
    let request = SubtleEncryptRequest {
        component_name: "keys".to_owned(),
        key_name: "key".to_owned(),
        algorithm: "A256GCM".to_owned(),
        plaintext: "hello".into(),
        nonce: vec![0; 12].into(),
        ..Default::default()
    };
    let same = grpc.subtle_encrypt_alpha1(request.clone()).await?;
    assert_eq!(same.into_inner().tag.len(), 16);
    let wrapped = call("wrapkey", json!({"plaintextKey": "AAECAwQFBgcICQoLDA0ODw==", "algorithm": "A256KW", "keyName": "key"})).await?;
    let unwrapped = call(
        "unwrapkey",
        json!({"wrappedKey": wrapped["wrappedKey"], "algorithm": "A256KW", "keyName": "key"}),
    )
    .await?;
    assert_eq!(
        unwrapped,
        json!({"plaintextKey": "AAECAwQFBgcICQoLDA0ODw=="})
    );
    // Failures tell nothing.
    let generic = |what: &str| json!({"errorCode": "ERR_CRYPTO", "message": format!("failed to perform operation: {what}")});
    let wrong = call(
        "decrypt",
        with(json!({"ciphertext": "AAAA", "tag": sealed["tag"]})),
    )
    .await?;
    assert_eq!(wrong, generic("failed to decrypt"));
    let signed = call(
        "sign",
        json!({"digest": "AAAA", "algorithm": "RS256", "keyName": "key"}),
    )
    .await?;
    assert_eq!(signed, generic("failed to sign"));
    let status = grpc.subtle_encrypt_alpha1(SubtleEncryptRequest {
        algorithm: "none".to_owned(),
        ..request
    });
    let status = status.await.expect_err("no such algorithm");
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Internal,
            "failed to perform operation: failed to encrypt"
        )
    );
    let key = call("getkey", json!({"name": "key"})).await?;
    assert_eq!(key["errorCode"], "ERR_CRYPTO_KEY");
    Ok(())
}

#[tokio::test]
async fn a_store_of_keys_comes_and_goes_while_the_sidecar_runs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("key"), KEY)?;
    let daprd = Daprd::builder().start().await?;
    let none = put(&daprd, ENCRYPT, &WRAPPED, b"x").await?;
    let wanted = (
        "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED".to_owned(),
        "crypto providers not configured".to_owned(),
    );
    assert_eq!((none.status, none.error()?), (500, wanted));
    let file = daprd.resources().join("keys.yaml");
    std::fs::write(&file, component(&folder))?;
    wait::until("the keys are there", || async {
        let answer = put(&daprd, ENCRYPT, &WRAPPED, b"x").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;
    std::fs::remove_file(&file)?;
    wait::until("the keys are gone", || async {
        let answer = put(&daprd, ENCRYPT, &WRAPPED, b"x").await.ok()?;
        (answer.status == 500).then_some(())
    })
    .await?;
    Ok(())
}
