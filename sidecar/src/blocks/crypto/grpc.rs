//! Cryptography over gRPC: documents are streams in both directions.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use outrider_proto::common::v1::StreamPayload;
use outrider_proto::runtime::v1 as wire;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::document::{Document, Failure, Options, Source};
use super::{Api, error, ops};
use crate::blocks::error::{Error, Result};

/// How long a client may take for its first message, which has the options.
const FIRST_LIMIT: Duration = Duration::from_secs(5);

/// A message of a stream: options, a piece of the document, or both.
trait Message: Send + 'static {
    fn has_options(&self) -> bool;

    fn payload(self) -> Option<StreamPayload>;
}

impl Message for wire::EncryptRequest {
    fn has_options(&self) -> bool {
        self.options.is_some()
    }

    fn payload(self) -> Option<StreamPayload> {
        self.payload
    }
}

impl Message for wire::DecryptRequest {
    fn has_options(&self) -> bool {
        self.options.is_some()
    }

    fn payload(self) -> Option<StreamPayload> {
        self.payload
    }
}

pub async fn encrypt(
    api: &Api,
    request: Request<Streaming<wire::EncryptRequest>>,
) -> std::result::Result<Response<BoxStream<wire::EncryptResponse>>, Status> {
    let mut messages = request.into_inner();
    let mut first = first(&mut messages).await?;
    let options = first.options.take().ok_or_else(without_options)?;
    let missing = |name: &str| {
        error::bad_request(format!("missing property '{name}' in the options message"))
    };
    if options.key_name.is_empty() {
        return Err(missing("keyName").into());
    }
    if options.key_wrap_algorithm.is_empty() {
        return Err(missing("keyWrapAlgorithm").into());
    }
    let provider = api.provider(&options.component_name)?;
    let cipher = &options.data_encryption_cipher;
    let (wrapping, omits) = (
        &options.key_wrap_algorithm,
        options.omit_decryption_key_name,
    );
    let options = Options::new(options.key_name, wrapping, cipher)
        .map_err(error::operation)?
        .showing(omits, options.decryption_key_name);
    let source = pieces(first, messages);
    let document = ops::encrypt(&provider, &options, source).await?;
    let answer = |payload| wire::EncryptResponse {
        payload: Some(payload),
    };
    Ok(Response::new(answers(document, answer)))
}

pub async fn decrypt(
    api: &Api,
    request: Request<Streaming<wire::DecryptRequest>>,
) -> std::result::Result<Response<BoxStream<wire::DecryptResponse>>, Status> {
    let mut messages = request.into_inner();
    let mut first = first(&mut messages).await?;
    let options = first.options.take().ok_or_else(without_options)?;
    let provider = api.provider(&options.component_name)?;
    let source = pieces(first, messages);
    let document = ops::decrypt(&provider, &options.key_name, source).await?;
    let answer = |payload| wire::DecryptResponse {
        payload: Some(payload),
    };
    Ok(Response::new(answers(document, answer)))
}

fn without_options() -> Error {
    error::bad_request("first message does not contain the required options")
}

async fn first<M>(messages: &mut Streaming<M>) -> Result<M> {
    let failed =
        |cause: &str| error::operation(format!("error receiving the first message: {cause}"));
    match tokio::time::timeout(FIRST_LIMIT, messages.message()).await {
        Ok(Ok(Some(first))) => Ok(first),
        Ok(Ok(None)) => Err(failed("EOF")),
        Ok(Err(status)) => Err(failed(status.message())),
        Err(_) => Err(error::bad_request(
            "error waiting for first message: context deadline exceeded",
        )),
    }
}

/// The pieces of a document, in the order that their numbers promise.
fn pieces<M: Message>(first: M, messages: Streaming<M>) -> Source {
    struct State<M> {
        first: Option<M>,
        messages: Streaming<M>,
        expected: u64,
    }

    impl<M: Message> State<M> {
        async fn next(&mut self) -> std::result::Result<Option<Bytes>, Failure> {
            loop {
                let message = match self.first.take() {
                    Some(first) => first,
                    None => match self.messages.message().await {
                        Ok(Some(message)) if message.has_options() => {
                            return Err(Failure::new("options found in non-leading message"));
                        }
                        Ok(Some(message)) => message,
                        Ok(None) => return Ok(None),
                        Err(status) => {
                            let text = status.message();
                            return Err(Failure::new(format!("error receiving message: {text}")));
                        }
                    },
                };
                let Some(StreamPayload { data, seq }) = message.payload() else {
                    continue;
                };
                let expected = self.expected;
                if seq != expected {
                    return Err(Failure::new(format!(
                        "invalid sequence number received: {seq} (expected: {expected})"
                    )));
                }
                self.expected = expected.wrapping_add(1);
                return Ok(Some(data));
            }
        }
    }

    let state = State {
        first: Some(first),
        messages,
        expected: 0,
    };
    let pieces = stream::try_unfold(state, |mut state| async move {
        let piece = state.next().await?;
        Ok(piece.map(|piece| (piece, state)))
    });
    pieces.boxed()
}

/// The document in numbered pieces.
fn answers<A: Send + 'static>(
    document: Document,
    answer: impl Fn(StreamPayload) -> A + Send + 'static,
) -> BoxStream<A> {
    let state = (document, 0_u64, answer);
    let answers = stream::try_unfold(state, |(mut document, seq, answer)| async move {
        let piece = document.next().await;
        let piece = piece.map_err(|cause| Status::from(error::operation(cause)))?;
        let Some(data) = piece else {
            return Ok(None);
        };
        let payload = answer(StreamPayload { data, seq });
        Ok(Some((payload, (document, seq.wrapping_add(1), answer))))
    });
    answers.boxed()
}

macro_rules! subtle {
    ($($method:ident: $request:ident -> $response:ident),+ $(,)?) => {$(
        pub async fn $method(
            api: &Api,
            request: wire::$request,
        ) -> std::result::Result<Response<wire::$response>, Status> {
            Ok(Response::new(api.$method(request).await?))
        }
    )+};
}

subtle! {
    get_key: SubtleGetKeyRequest -> SubtleGetKeyResponse,
    subtle_encrypt: SubtleEncryptRequest -> SubtleEncryptResponse,
    subtle_decrypt: SubtleDecryptRequest -> SubtleDecryptResponse,
    wrap_key: SubtleWrapKeyRequest -> SubtleWrapKeyResponse,
    unwrap_key: SubtleUnwrapKeyRequest -> SubtleUnwrapKeyResponse,
    sign: SubtleSignRequest -> SubtleSignResponse,
    verify: SubtleVerifyRequest -> SubtleVerifyResponse,
}
