//! `middleware.http.uppercase`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-uppercase/>.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use outrider_components::middleware::{Body, BoxError, Middleware, Next, Outcome, Request};
use outrider_components::{Context, Error, Field, FieldValue, Metadata};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Whose body is turned into upper case: that of the `request`, of the
        /// `response`, or of `both`. Any other word means `request`.
        "direction" => direction: Direction = "request";
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direction {
    request: bool,
    response: bool,
}

impl FieldValue for Direction {
    const KIND: &'static str = "string";

    fn parse(text: &str) -> Result<Direction, String> {
        let response = ["response", "both"].contains(&&*text.to_lowercase());
        Ok(Direction {
            request: !text.eq_ignore_ascii_case("response"),
            response,
        })
    }
}

/// Reads the metadata.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let Fields { direction } = Fields::read(&metadata)?;
    Ok(Arc::new(direction))
}

#[async_trait]
impl Middleware for Direction {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Outcome {
        if self.request && !request.body().is_end_stream() {
            // A letter may be shorter in upper case.
            request.headers_mut().remove(header::CONTENT_LENGTH);
            request = request.map(upper);
        }
        let mut response = next.run(request).await?;
        if self.response && !response.body().is_end_stream() {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response = response.map(upper);
        }
        Ok(response)
    }
}

/// `body` in upper case, frame by frame.
fn upper(body: Body) -> Body {
    Upper {
        body,
        cut: Bytes::new(),
    }
    .boxed_unsync()
}

struct Upper {
    body: Body,
    /// The beginning of a character whose end has not come: three bytes at most.
    cut: Bytes,
}

impl http_body::Body for Upper {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Frame::data(this.convert(data)),
                Err(trailers) => trailers,
            },
            // What was begun is not a character: it stays as it is.
            None if !this.cut.is_empty() => Frame::data(std::mem::take(&mut this.cut)),
            other => return Poll::Ready(other),
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Upper {
    fn convert(&mut self, data: Bytes) -> Bytes {
        let mut all = BytesMut::with_capacity(self.cut.len() + data.len());
        all.put(std::mem::take(&mut self.cut));
        all.put(data);
        let (text, cut) = convert(all.freeze());
        self.cut = cut;
        text
    }
}

/// Text in upper case, and what may be the beginning of a character at its
/// end. Bytes that are not UTF-8 stay as they are.
fn convert(text: Bytes) -> (Bytes, Bytes) {
    if text.is_ascii() {
        let mut text = BytesMut::from(text);
        text.make_ascii_uppercase();
        return (text.freeze(), Bytes::new());
    }
    let mut upper = BytesMut::with_capacity(text.len());
    let mut done = 0;
    for chunk in text.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let mut buffer = [0; 4];
            upper.put_slice(simple(letter).encode_utf8(&mut buffer).as_bytes());
        }
        done += chunk.valid().len();
        let invalid = chunk.invalid();
        let is_end = done + invalid.len() == text.len();
        // Of bytes at the end more may follow, if they can begin a character.
        let is_begun = std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
        if is_end && is_begun {
            break;
        }
        upper.put_slice(invalid);
        done += invalid.len();
    }
    (upper.freeze(), text.slice(done..))
}

/// The upper case of a letter, where it is a single one.
fn simple(letter: char) -> char {
    let mut upper = letter.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => letter,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use outrider_components::middleware::{End, Response, full};
    use proptest::prelude::*;

    use super::*;

    async fn upper_of(frames: &[&[u8]]) -> Vec<u8> {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(frame))))
            .collect();
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let collected = upper(body).collect().await.expect("a body");
        collected.to_bytes().to_vec()
    }

    #[tokio::test]
    async fn letters_are_raised_whatever_frames_they_come_in() {
        let text = "Nel mezzo, ch\u{e9}: \u{1f600}stra\u{df}e \u{131}".as_bytes();
        let wanted = "NEL MEZZO, CH\u{c9}: \u{1f600}STRA\u{df}E I".as_bytes();
        assert_eq!(upper_of(&[text]).await, wanted);
        for at in 0..text.len() {
            assert_eq!(upper_of(&[&text[..at], &text[at..]]).await, wanted, "{at}");
        }
        let bytes: Vec<_> = text.chunks(1).collect();
        assert_eq!(upper_of(&bytes).await, wanted);
    }

    proptest! {
        #[test]
        fn prop_what_is_not_text_keeps_its_bytes(frames in prop::collection::vec(prop::collection::vec(0x80u8.., 0..5), 0..5)) {
            let whole: Vec<u8> = frames.concat();
            prop_assume!(whole.utf8_chunks().all(|chunk| chunk.valid().is_empty()));
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            prop_assert_eq!(runtime.block_on(upper_of(&frames)), whole);
        }
    }

    struct Echo;

    #[async_trait]
    impl End for Echo {
        async fn answer(&self, request: Request) -> Outcome {
            assert!(!request.headers().contains_key(header::CONTENT_LENGTH));
            let body = request.into_body().collect().await?.to_bytes();
            Ok(Response::new(full([&b"got "[..], &body].concat())))
        }
    }

    #[tokio::test]
    async fn direction_says_which_body_is_raised() {
        for (direction, wanted) in [
            (None, "got HI"),
            (Some("Request"), "got HI"),
            (Some("sideways"), "got HI"),
            (Some("both"), "GOT HI"),
        ] {
            let pairs = direction.map(|direction| ("direction", direction));
            let metadata = Metadata::new("upper", pairs);
            let middleware = connect(metadata, Context::default()).await.expect("valid");
            let mut request = Request::new(full("hi"));
            request.headers_mut().insert("content-length", 2.into());
            let chain = [middleware];
            let response = Next::new(&chain, &Echo).run(request).await.expect("answer");
            let body = response.into_body().collect().await.expect("a body");
            assert_eq!(body.to_bytes(), wanted, "{direction:?}");
        }
        let response = Direction::parse("RESPONSE").expect("any word");
        assert!(response.response && !response.request);
    }
}
