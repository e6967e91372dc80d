//! Cryptography over HTTP. <https://docs.dapr.io/reference/api/cryptography_api/>
//!
//! Up to [`AHEAD`] bytes of a request are read before the answer begins: so
//! clients that read only when they have written everything are served too, and
//! what is wrong with a document of that size is an answer. A longer one streams
//! through, and what is wrong with it breaks its answer off.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyStream, StreamBody};
use outrider_kit::truthy;
use outrider_net::body::{self, Body, BoxError};
use outrider_proto::runtime::v1 as wire;

use super::document::{Document, Failure, Options, Source};
use super::{Api, error, ops};
use crate::blocks::error::Result;
use crate::blocks::http::Request;
use crate::blocks::proto_json;

const KEY_NAME: &str = "dapr-key-name";
const WRAPPING: &str = "dapr-key-wrap-algorithm";
const OMITS_NAME: &str = "dapr-omit-decryption-key-name";
const SHOWN_NAME: &str = "dapr-decryption-key-name";
const CIPHER: &str = "dapr-data-encryption-cipher";

const AHEAD: usize = 4 << 20;

pub async fn encrypt(api: &Api, request: Request, name: &str) -> Response<Body> {
    let answered = async {
        let provider = api.provider(name)?;
        let text = |name| request.header(name).unwrap_or_default();
        let needed = |name: &'static str| match text(name) {
            "" => Err(error::bad_request(format!("missing header '{name}'"))),
            given => Ok(given),
        };
        let (key, wrapping) = (needed(KEY_NAME)?, needed(WRAPPING)?);
        let options = Options::new(key.to_owned(), wrapping, text(CIPHER))
            .map_err(error::operation)?
            .showing(truthy(text(OMITS_NAME)), text(SHOWN_NAME).to_owned());
        let (source, is_whole) = source(request).await?;
        let document = ops::encrypt(&provider, &options, source).await?;
        answer(document, is_whole).await
    };
    answered.await.unwrap_or_else(Into::into)
}

pub async fn decrypt(api: &Api, request: Request, name: &str) -> Response<Body> {
    let answered = async {
        let provider = api.provider(name)?;
        let key_name = request.header(KEY_NAME).unwrap_or_default().to_owned();
        let (source, is_whole) = source(request).await?;
        let document = ops::decrypt(&provider, &key_name, source).await?;
        answer(document, is_whole).await
    };
    answered.await.unwrap_or_else(Into::into)
}

/// A body, and whether all of it is here.
async fn source(request: Request) -> Result<(Source, bool)> {
    let limit = request.limit.unwrap_or(usize::MAX);
    let pieces = BodyStream::new(request.body);
    let pieces = pieces.map_err(|cause| Failure::new(format!("failed to read body: {cause}")));
    let pieces =
        pieces.try_filter_map(|frame: Frame<Bytes>| future::ready(Ok(frame.into_data().ok())));
    let mut read = 0_usize;
    let mut pieces = pieces
        .map(move |piece| {
            let piece = piece?;
            read = read.saturating_add(piece.len());
            match read > limit {
                true => Err(Failure::new(TOO_LARGE)),
                false => Ok(piece),
            }
        })
        .boxed();
    let (mut ahead, mut size) = (Vec::new(), 0);
    while size < AHEAD {
        match pieces.next().await {
            Some(Ok(piece)) => {
                size += piece.len();
                ahead.push(Ok(piece));
            }
            Some(Err(cause)) if cause.0 == TOO_LARGE => {
                let mut error = error::operation(cause);
                error.http = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(error);
            }
            Some(Err(cause)) => return Err(error::operation(cause)),
            None => return Ok((stream::iter(ahead).boxed(), true)),
        }
    }
    Ok((stream::iter(ahead).chain(pieces).boxed(), false))
}

const TOO_LARGE: &str = "the body is too large";

/// What is wrong with a whole document is the answer instead of it.
async fn answer(mut document: Document, is_whole: bool) -> Result<Response<Body>> {
    let mut pieces = Vec::new();
    loop {
        let piece = document.next().await.map_err(error::processing)?;
        match piece {
            Some(piece) => pieces.push(piece),
            None => {
                let body = body::full(pieces.concat());
                return Ok(octets(body));
            }
        }
        if !is_whole {
            break;
        }
    }
    let rest = stream::try_unfold(document, |mut document| async move {
        let piece = document.next().await?;
        Ok(piece.map(|piece| (piece, document)))
    });
    let rest = rest.map_err(|cause: Failure| BoxError::from(cause));
    Ok(octets(streamed(stream::iter(pieces).map(Ok).chain(rest))))
}

fn streamed(
    pieces: impl stream::Stream<Item = std::result::Result<Bytes, BoxError>> + Send + 'static,
) -> Body {
    body::stream(StreamBody::new(pieces.map_ok(Frame::data)))
}

fn octets(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    response
}

macro_rules! subtle {
    ($($method:ident: $request:ident -> $response:ident),+ $(,)?) => {$(
        pub async fn $method(api: &Api, request: Request, name: &str) -> Response<Body> {
            let answered = async {
                let mut request: wire::$request =
                    proto_json::read(request, stringify!($request)).await?;
                request.component_name = name.to_owned();
                api.$method(request).await
            };
            let answered: Result<wire::$response> = answered.await;
            proto_json::answer(stringify!($response), answered)
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
