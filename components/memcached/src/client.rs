//! The text protocol of memcached, as far as it is needed:
//! <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outrider_components::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

/// The largest answer line and the largest value that are read.
const MAX_LINE: u64 = 4096;
const MAX_VALUE: usize = 128 << 20;
const MAX_KEY: usize = 250;

/// Some servers, each with its share of the keys.
pub struct Client {
    servers: Vec<Server>,
    timeout: Duration,
    max_idle: usize,
}

struct Server {
    address: String,
    idle: Mutex<Vec<BufStream<TcpStream>>>,
}

impl Client {
    /// `servers` have a host and a port each, and keep as many unused
    /// connections as `max_idle`.
    pub fn new(servers: Vec<String>, timeout: Duration, max_idle: usize) -> Client {
        let servers = servers.into_iter().map(|address| Server {
            address,
            idle: Mutex::default(),
        });
        Client {
            servers: servers.collect(),
            timeout,
            max_idle,
        }
    }

    /// The server that has a key: which one does not depend on whether others
    /// answer.
    fn server(&self, key: &str) -> &Server {
        let count = u32::try_from(self.servers.len()).unwrap_or(1);
        let at = if count == 1 {
            0
        } else {
            checksum(key.as_bytes()) % count
        };
        &self.servers[usize::try_from(at).unwrap_or(0)]
    }

    /// Whether every server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        for server in &self.servers {
            let line = self.line(server, b"version\r\n").await?;
            if !line.starts_with("VERSION") {
                return Err(unexpected(&line));
            }
        }
        Ok(())
    }

    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        check_key(key)?;
        let command = format!("get {key}\r\n");
        self.exchange(self.server(key), command.as_bytes(), Answer::Value)
            .await
            .map(|(_, value)| value)
    }

    /// `expires` is seconds from now, or since 1970 from 30 days on; 0 means
    /// never.
    pub async fn set(&self, key: &str, value: &[u8], expires: u32) -> Result<(), Error> {
        check_key(key)?;
        let mut command = format!("set {key} 0 {expires} {}\r\n", value.len()).into_bytes();
        command.extend_from_slice(value);
        command.extend_from_slice(b"\r\n");
        match self.line(self.server(key), &command).await?.as_str() {
            "STORED" => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Deleting what is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let command = format!("delete {key}\r\n");
        match self
            .line(self.server(key), command.as_bytes())
            .await?
            .as_str()
        {
            "DELETED" | "NOT_FOUND" => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn line(&self, server: &Server, command: &[u8]) -> Result<String, Error> {
        let answer = self.exchange(server, command, Answer::Line).await?;
        Ok(answer.0)
    }

    async fn exchange(
        &self,
        server: &Server,
        command: &[u8],
        wanted: Answer,
    ) -> Result<(String, Option<Bytes>), Error> {
        let asking = async {
            // A connection that was unused may be broken; a new one is not.
            if let Some(mut stream) = server.take() {
                match talk(&mut stream, command, wanted).await {
                    Ok(answer) => return Ok((stream, answer)),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                    Err(_) => {}
                }
            }
            let stream = TcpStream::connect(&server.address).await?;
            stream.set_nodelay(true)?;
            let mut stream = BufStream::new(stream);
            let answer = talk(&mut stream, command, wanted).await?;
            Ok((stream, answer))
        };
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(Ok((stream, answer))) => {
                server.put(stream, self.max_idle);
                Ok(answer)
            }
            Ok(Err(error)) => Err(Error::unavailable(error.to_string()).because(error)),
            Err(_) => Err(Error::unavailable(format!(
                "memcache: connect timeout to {}",
                server.address
            ))),
        }
    }
}

impl Server {
    fn take(&self) -> Option<BufStream<TcpStream>> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn put(&self, stream: BufStream<TcpStream>, max_idle: usize) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < max_idle {
            idle.push(stream);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Line,
    Value,
}

async fn talk(
    stream: &mut BufStream<TcpStream>,
    command: &[u8],
    wanted: Answer,
) -> io::Result<(String, Option<Bytes>)> {
    stream.write_all(command).await?;
    stream.flush().await?;
    let line = read_line(stream).await?;
    if let Answer::Line = wanted {
        return Ok((line, None));
    }
    if line == "END" {
        return Ok((line, None));
    }
    // VALUE <key> <flags> <bytes>
    let length = line
        .strip_prefix("VALUE ")
        .and_then(|rest| rest.split(' ').nth(2)?.parse::<usize>().ok())
        .filter(|length| *length <= MAX_VALUE)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, unexpected(&line)))?;
    let mut value = vec![0; length + 2];
    stream.read_exact(&mut value).await?;
    value.truncate(length);
    let end = read_line(stream).await?;
    if end != "END" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, unexpected(&end)));
    }
    Ok((line, Some(value.into())))
}

async fn read_line(stream: &mut BufStream<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\r\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.len() - 2);
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn unexpected(line: &str) -> Error {
    Error::internal(format!("memcache: unexpected response line: {line:?}"))
}

/// The protocol has no escapes.
fn check_key(key: &str) -> Result<(), Error> {
    let is_legal = !key.is_empty()
        && key.len() <= MAX_KEY
        && key.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if is_legal {
        return Ok(());
    }
    Err(Error::invalid(
        "malformed: key is too long or contains invalid characters",
    ))
}

/// CRC-32 as in IEEE 802.3, which is how Dapr spreads keys over servers.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let low = sum & 1;
            sum >>= 1;
            if low == 1 {
                sum ^= 0xedb8_8320;
            }
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn keys_without_a_form_in_the_protocol_are_refused() {
        assert!(check_key("app||ü").is_ok());
        for key in ["", "a b", "a\r\nflush_all", &"x".repeat(251)] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }
}
