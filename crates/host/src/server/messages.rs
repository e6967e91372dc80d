//! gRPC messages that have not come whole. Streams have no end by which their
//! bytes could be bounded, so what all clients together may leave unfinished is.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::framing::{Framing, Piece};
use super::slots::Source;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the clients of a listener have sent of messages whose rest is missing.
/// Cloning shares it.
#[derive(Clone)]
pub struct Messages(Arc<Shared>);

struct Shared {
    /// In bytes.
    most: usize,
    state: Mutex<State>,
}

type Id = u64;

#[derive(Default)]
struct State {
    next: Id,
    held: usize,
    streams: HashMap<Id, Held>,
    sources: HashMap<Source, Streams>,
    /// Sources by what they hold.
    by_size: BTreeSet<(usize, Source)>,
}

struct Held {
    source: Source,
    held: usize,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Streams {
    held: usize,
    by_size: BTreeSet<(usize, Id)>,
}

impl State {
    fn take(&mut self, id: Id) -> Option<Held> {
        let stream = self.streams.remove(&id)?;
        self.held -= stream.held;
        if let Some(all) = self.sources.get_mut(&stream.source) {
            self.by_size.remove(&(all.held, stream.source));
            all.by_size.remove(&(stream.held, id));
            all.held -= stream.held;
            if all.by_size.is_empty() {
                self.sources.remove(&stream.source);
            } else {
                self.by_size.insert((all.held, stream.source));
            }
        }
        Some(stream)
    }

    fn put(&mut self, id: Id, stream: Held) {
        self.held += stream.held;
        let all = self.sources.entry(stream.source).or_default();
        self.by_size.remove(&(all.held, stream.source));
        all.held += stream.held;
        all.by_size.insert((stream.held, id));
        self.by_size.insert((all.held, stream.source));
        self.streams.insert(id, stream);
    }

    /// The largest message of the source that holds most.
    fn largest(&self) -> Option<Id> {
        let (_, source) = self.by_size.last()?;
        let (_, id) = self.sources.get(source)?.by_size.last()?;
        Some(*id)
    }
}

impl Messages {
    /// At most so many bytes; more than the longest message has.
    pub fn new(most: usize) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { most, state }))
    }

    /// Counts the messages of a request from `source`.
    pub fn of<B>(&self, source: Source, body: B) -> Measured<B> {
        let id = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        Measured {
            body: Some(body),
            messages: self.clone(),
            source,
            id,
            holds: false,
            framing: Framing::default(),
            here: 0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a stream holds. Where that is too much for all together, the
    /// largest message of the source that holds most is given up, be it this one.
    fn hold(&self, id: Id, stream: Held) -> bool {
        let mut woken = Vec::new();
        let kept = {
            let mut state = self.state();
            state.take(id);
            state.put(id, stream);
            while state.held > self.0.most
                && let Some(largest) = state.largest()
            {
                let given_up = state.take(largest);
                woken.extend(given_up.and_then(|it| it.waker));
            }
            state.streams.contains_key(&id)
        };
        for waker in woken {
            waker.wake();
        }
        kept
    }

    /// Whether a stream may go on; it is woken if that changes.
    fn is_kept(&self, id: Id, waker: &Waker) -> bool {
        let mut state = self.state();
        let Some(stream) = state.streams.get_mut(&id) else {
            return false;
        };
        match &mut stream.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        true
    }

    fn release(&self, id: Id) {
        self.state().take(id);
    }
}

/// The body of a request whose unfinished message counts.
pub struct Measured<B> {
    /// None once its message was given up.
    body: Option<B>,
    messages: Messages,
    source: Source,
    id: Id,
    /// Whether something of it is counted.
    holds: bool,
    framing: Framing,
    /// Bytes of the message at hand that are here.
    here: usize,
}

impl<B> Measured<B> {
    fn follow(&mut self, mut data: &[u8]) {
        while let Some(piece) = self.framing.next(&mut data) {
            match piece {
                Piece::Message(length) => self.here += length,
                Piece::Prefix | Piece::Begin(_) => self.here = 0,
            }
        }
        if self.framing.left() == 0 {
            self.here = 0;
        }
    }

    /// Counts what is here of the message. Returns whether it may go on.
    fn count(&mut self, waker: &Waker) -> bool {
        if self.here == 0 {
            if std::mem::take(&mut self.holds) {
                self.messages.release(self.id);
            }
            return true;
        }
        self.holds = true;
        let stream = Held {
            source: self.source,
            held: self.here,
            waker: Some(waker.clone()),
        };
        self.messages.hold(self.id, stream)
    }

    fn give_up<T>(&mut self) -> Poll<Option<Result<T, BoxError>>> {
        (self.body, self.holds) = (None, false);
        let text = "too many messages are being received: try again later";
        Poll::Ready(Some(Err(Status::resource_exhausted(text).into())))
    }
}

impl<B> Body for Measured<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if this.holds && !this.messages.is_kept(this.id, context.waker()) {
            return this.give_up();
        }
        let frame = ready!(Pin::new(body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.follow(data);
            if !this.count(context.waker()) {
                return this.give_up();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(B::size_hint).unwrap_or_default()
    }
}

impl<B> Drop for Measured<B> {
    fn drop(&mut self) {
        if self.holds {
            self.messages.release(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::{IpAddr, Ipv4Addr};

    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc;
    use tonic::Code;

    use super::*;

    struct Sent(mpsc::UnboundedReceiver<Bytes>);

    impl Body for Sent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let data = self.0.poll_recv(context);
            data.map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }

    struct Stream {
        sender: mpsc::UnboundedSender<Bytes>,
        body: Measured<Sent>,
    }

    impl Stream {
        fn open(messages: &Messages, from: u8) -> Self {
            let (sender, sent) = mpsc::unbounded_channel();
            let source = IpAddr::V4(Ipv4Addr::new(10, 0, 0, from)).into();
            let body = messages.of(source, Sent(sent));
            Self { sender, body }
        }

        /// Has some bytes read.
        async fn read(&mut self, data: &[u8]) -> Result<(), BoxError> {
            self.sender.send(Bytes::copy_from_slice(data)).unwrap();
            self.body.frame().await.unwrap().map(drop)
        }

        /// The same for the beginning of a message of 1,000 bytes.
        async fn begin(&mut self, bytes: usize) -> Result<(), BoxError> {
            let start = [&[0, 0, 0, 0x03, 0xe8][..], &vec![7; bytes]].concat();
            self.read(&start).await
        }
    }

    fn held(messages: &Messages) -> usize {
        messages.state().held
    }

    #[tokio::test]
    async fn only_what_is_not_whole_counts_however_it_is_cut() {
        let messages = Messages::new(4096);
        let whole = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0]].concat();
        for cut in 1..whole.len() {
            let mut stream = Stream::open(&messages, 1);
            stream.read(&whole[..cut]).await.unwrap();
            let of_first = if cut < 8 { cut.saturating_sub(5) } else { 0 };
            assert_eq!(held(&messages), of_first, "{cut}");
            stream.read(&whole[cut..]).await.unwrap();
            assert_eq!(held(&messages), 0, "{cut}");
        }
        let mut stream = Stream::open(&messages, 1);
        stream.begin(600).await.unwrap();
        assert_eq!(held(&messages), 600);
        drop(stream);
        assert_eq!(held(&messages), 0);
        assert!(messages.state().sources.is_empty());
    }

    #[tokio::test]
    async fn the_source_that_holds_most_makes_room() {
        let messages = Messages::new(1500);
        let mut honest = Stream::open(&messages, 1);
        honest.begin(700).await.unwrap();
        let mut many = Vec::new();
        for _ in 0..4 {
            let mut stream = Stream::open(&messages, 2);
            stream.begin(200).await.unwrap();
            many.push(stream);
        }
        let mut stream = Stream::open(&messages, 2);
        let refused = stream.begin(300).await.unwrap_err();
        let status = refused.downcast::<Status>().unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(held(&messages), 1500);
        honest.read(&[7; 300]).await.unwrap();
        assert_eq!(held(&messages), 800);
    }

    #[tokio::test]
    async fn a_message_that_is_given_up_ends_its_stream_at_once() {
        let messages = Messages::new(1000);
        let mut large = Stream::open(&messages, 1);
        large.begin(900).await.unwrap();
        let tasks = crate::Tasks::new();
        let (ended_tx, ended) = tokio::sync::oneshot::channel();
        tasks.spawn("waits", async move {
            let ended = large.body.frame().await.unwrap();
            let _ = ended_tx.send(ended.map(drop));
        });
        tokio::task::yield_now().await;
        let mut small = Stream::open(&messages, 2);
        small.begin(200).await.unwrap();
        let ended = ended.await.unwrap();
        assert!(ended.is_err());
        assert_eq!(held(&messages), 200);
    }
}
