//! A connection that has sent its first bytes, and that reports further ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use outrider_security::Connection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose client has sent the first bytes of its protocol. Until
/// then it has no buffers.
pub(super) struct Greeted {
    pub connection: Connection,
    first: [u8; PREFACE.len()],
    length: usize,
    is_http2: bool,
}

impl Greeted {
    /// Waits for the first bytes: all of the preface, or those that show that
    /// it is not one. With TLS the handshake has said the protocol; plaintext
    /// clients of gRPC begin with the preface (RFC 9113, section 3.3).
    pub async fn read(mut connection: Connection) -> io::Result<Self> {
        let protocol = connection.protocol().map(|it| it == b"h2");
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        let mut is_http2 = protocol != Some(false);
        while length == 0 || (is_http2 && length < PREFACE.len()) {
            let goal = if is_http2 { PREFACE.len() } else { 1 };
            let read = connection.read(&mut first[length..goal]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += read;
            is_http2 = is_http2 && (protocol.is_some() || PREFACE.starts_with(&first[..length]));
        }
        Ok(Self {
            connection,
            first,
            length,
            is_http2,
        })
    }

    pub fn is_http2(&self) -> bool {
        self.is_http2
    }
}

/// A connection. Where it serves one request after another, bytes between two
/// of them are the head of the next; HTTP/2 has frames for other things.
pub(super) struct Watched {
    connection: Connection,
    /// Bytes that were read already, and how many of them are passed on.
    first: [u8; PREFACE.len()],
    length: usize,
    passed: usize,
    activity: Option<Activity>,
}

impl Watched {
    pub fn new(greeted: Greeted, activity: Option<Activity>) -> Self {
        Self {
            connection: greeted.connection,
            first: greeted.first,
            length: greeted.length,
            passed: 0,
            activity,
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.passed < this.length && buffer.remaining() > 0 {
            let rest = &this.first[this.passed..this.length];
            let length = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..length]);
            this.passed += length;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.connection).poll_read(context, buffer);
        if let Some(activity) = &this.activity
            && buffer.filled().len() > before
        {
            activity.bytes();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use outrider_security::Acceptor;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What a plaintext client is taken for that sends these pieces, and what
    /// the server reads of it.
    async fn greet(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        client.set_nodelay(true).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let connection = Acceptor::plaintext().accept(socket).await.unwrap();
        let send = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                client.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let receive = async {
            let greeted = Greeted::read(connection).await.unwrap();
            let is_http2 = greeted.is_http2();
            let mut all = Vec::new();
            let mut watched = Watched::new(greeted, None);
            watched.read_to_end(&mut all).await.unwrap();
            (is_http2, all)
        };
        tokio::join!(send, receive).1
    }

    #[tokio::test]
    async fn a_plaintext_client_of_http2_is_known_by_the_preface() {
        let (begin, rest) = PREFACE.split_at(3);
        for pieces in [vec![&PREFACE[..]], vec![begin, rest, b"frames"]] {
            assert_eq!(greet(&pieces).await, (true, pieces.concat()));
        }
        for pieces in [
            vec![&b"GET / HTTP/1.1\r\n"[..]],
            vec![b"P", b"OST / HTTP/1.1\r\n"],
            vec![begin, b" /x HTTP/1.1\r\n\r\n"],
        ] {
            assert_eq!(greet(&pieces).await, (false, pieces.concat()));
        }
    }
}
