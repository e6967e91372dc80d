//! A connection to a mail server, for one mail.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::extension::{ClientId, Extension};
use outrider_components::{Error, Kind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For one mail, from the connection to the server's last word.
const LIMIT: Duration = Duration::from_secs(60);
/// The port where TLS begins at once.
const TLS_PORT: u16 = 465;
/// Bytes that a server may send for one mail.
const MOST_BYTES: usize = 1 << 20;

pub struct User {
    pub name: String,
    pub password: String,
}

/// Where mails go.
pub struct Server {
    host: String,
    port: u16,
    user: Option<User>,
    tls: TlsParameters,
}

impl Server {
    pub fn new(
        host: &str,
        port: u16,
        user: Option<User>,
        skip_verify: bool,
    ) -> Result<Server, Error> {
        let tls = TlsParametersBuilder::new(host.to_owned())
            .dangerous_accept_invalid_certs(skip_verify)
            .dangerous_accept_invalid_hostnames(skip_verify)
            .build()
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(Server {
            host: host.to_owned(),
            port,
            user,
            tls,
        })
    }

    /// Sends a mail. The server has it when this returns.
    pub async fn send(&self, message: &Message) -> Result<(), Error> {
        let sending = tokio::time::timeout(LIMIT, self.deliver(message));
        match sending.await {
            Ok(sent) => sent,
            Err(_) => Err(Error::unavailable("the server has not answered in time")),
        }
    }

    async fn deliver(&self, message: &Message) -> Result<(), Error> {
        let mut connection = self.connect().await?;
        self.authenticate(&mut connection).await?;
        connection
            .send(message.envelope(), &message.formatted())
            .await
            .map_err(failed)?;
        // The server has the mail, whatever it says now.
        let _ = connection.quit().await;
        Ok(())
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let name = ClientId::Domain("localhost".to_owned());
        let address = (self.host.as_str(), self.port);
        if self.port == TLS_PORT {
            let tls = Some(self.tls.clone());
            let limit = Some(CONNECT_LIMIT);
            let connecting = AsyncSmtpConnection::connect_tokio1(address, limit, &name, tls, None);
            return connecting.await.map_err(failed);
        }
        let connecting = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address));
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| Error::unavailable(error.to_string()))?;
        let stream = Bounded {
            stream,
            left: MOST_BYTES,
        };
        let connecting = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &name);
        let mut connection = connecting.await.map_err(failed)?;
        if connection.can_starttls() {
            let upgrading = connection.starttls(self.tls.clone(), &name);
            upgrading.await.map_err(failed)?;
        }
        Ok(connection)
    }

    /// Says who we are, where the server wants to know.
    async fn authenticate(&self, connection: &mut AsyncSmtpConnection) -> Result<(), Error> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        let known = [Mechanism::Plain, Mechanism::Login];
        let offers = connection.server_info();
        let is_known = known
            .iter()
            .any(|mechanism| offers.supports_feature(Extension::Authentication(*mechanism)));
        if !is_known {
            tracing::warn!(target: "dapr.contrib", "the smtp server offers neither PLAIN nor LOGIN: the mail is sent without user and password");
            return Ok(());
        }
        let is_near = ["localhost", "127.0.0.1", "::1"].contains(&self.host.as_str());
        if !connection.is_encrypted() && !is_near {
            return Err(Error::new(Kind::Denied, "unencrypted connection"));
        }
        let credentials = Credentials::new(user.name.clone(), user.password.clone());
        let authenticating = connection.auth(&known, &credentials);
        authenticating.await.map(drop).map_err(failed)
    }
}

fn failed(error: SmtpError) -> Error {
    let kind = match (error.is_permanent(), error.is_transient()) {
        (true, _) => Kind::Invalid,
        (false, true) => Kind::Unavailable,
        (false, false) if error.is_client() => Kind::Invalid,
        (false, false) => Kind::Unavailable,
    };
    Error::new(kind, outrider_kit::error::chain(&error)).because(error)
}

/// A connection that ends when the server has sent too much.
#[derive(Debug)]
struct Bounded {
    stream: TcpStream,
    left: usize,
}

impl AsyncTokioStream for Bounded {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                read
            }
            None => Poll::Ready(Err(io::Error::other("the server has sent too much"))),
        }
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn message() -> Message {
        let mailbox = || "a@b.example".parse().expect("is one");
        let message = Message::builder().from(mailbox()).to(mailbox());
        message.body("x".to_owned()).expect("is one")
    }

    #[tokio::test]
    async fn a_server_that_never_ends_its_line_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("is bound").port();
        let talking = async {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut sent = 0_usize;
            while stream.write_all(&[b'2'; 65_536]).await.is_ok() {
                sent += 65_536;
            }
            sent
        };
        let server = Server::new("127.0.0.1", port, None, false).expect("is right");
        let message = message();
        let (sent, refused) = tokio::join!(talking, server.send(&message));
        let error = refused.expect_err("says too much");
        assert!(error.to_string().contains("has sent too much"), "{error}");
        assert!(sent < 64 << 20, "{sent}");
    }

    #[tokio::test]
    async fn passwords_are_not_sent_without_tls() {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("bind");
        let port = listener.local_addr().expect("is bound").port();
        let hearing = async {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.write_all(b"220 here\r\n").await.expect("write");
            let mut heard = vec![0; 1000];
            let count = stream.read(&mut heard).await.expect("read");
            heard.truncate(count);
            stream
                .write_all(b"250-here\r\n250 AUTH PLAIN LOGIN\r\n")
                .await
                .expect("write");
            stream.read_to_end(&mut heard).await.expect("read");
            String::from_utf8_lossy(&heard).into_owned()
        };
        let user = User {
            name: "me".to_owned(),
            password: "secret".to_owned(),
        };
        // Of this machine, under a name that does not say so.
        let server = Server::new("127.0.0.2", port, Some(user), false).expect("is right");
        let message = message();
        let (heard, refused) = tokio::join!(hearing, server.send(&message));
        let error = refused.expect_err("has no TLS");
        assert_eq!(error.to_string(), "unencrypted connection");
        assert!(!heard.contains("AUTH"), "{heard}");
    }
}
