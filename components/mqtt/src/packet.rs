//! The packets of MQTT 3.1.1:
//! <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest packet that is read, which bounds what a server can make us
/// keep. The protocol's own limit is 256 MiB.
const MAX_SIZE: usize = 64 << 20;

/// How often a message is delivered: 0 at most once, 1 at least once, 2 once.
pub type Qos = u8;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Connect(Connect),
    Publish(Publish),
    /// Of a message of quality 1.
    Acknowledge(u16),
    /// Of a message of quality 2, in two steps.
    Received(u16),
    Release(u16),
    Complete(u16),
    Subscribe {
        id: u16,
        filter: String,
        qos: Qos,
    },
    Unsubscribe {
        id: u16,
        filter: String,
    },
    Ping,
    Disconnect,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Connected {
        code: u8,
        session_present: bool,
    },
    Publish(Publish),
    Acknowledged(u16),
    Recorded(u16),
    Released(u16),
    Completed(u16),
    /// `code` is the granted quality, or 0x80.
    Subscribed {
        id: u16,
        code: u8,
    },
    Unsubscribed(u16),
    Pong,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub client_id: String,
    pub clean_session: bool,
    /// Seconds.
    pub keep_alive: u16,
    pub user: Option<String>,
    pub password: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// Whether it was sent before.
    pub again: bool,
    /// 0 with quality 0.
    pub id: u16,
}

/// The server does not keep to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {0}")]
pub struct Malformed(&'static str);

impl Sent {
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Sent::Connect(connect) => connect.encode(out),
            Sent::Publish(publish) => publish.encode(out),
            Sent::Acknowledge(id) => numbered(out, 0x40, *id),
            Sent::Received(id) => numbered(out, 0x50, *id),
            Sent::Release(id) => numbered(out, 0x62, *id),
            Sent::Complete(id) => numbered(out, 0x70, *id),
            Sent::Subscribe { id, filter, qos } => {
                header(out, 0x82, 2 + 2 + filter.len() + 1);
                out.put_u16(*id);
                text(out, filter);
                out.put_u8(*qos);
            }
            Sent::Unsubscribe { id, filter } => {
                header(out, 0xa2, 2 + 2 + filter.len());
                out.put_u16(*id);
                text(out, filter);
            }
            Sent::Ping => header(out, 0xc0, 0),
            Sent::Disconnect => header(out, 0xe0, 0),
        }
    }
}

impl Connect {
    fn encode(&self, out: &mut BytesMut) {
        let texts = [
            Some(&self.client_id),
            self.user.as_ref(),
            self.password.as_ref(),
        ];
        let length: usize = texts.iter().flatten().map(|text| 2 + text.len()).sum();
        header(out, 0x10, 10 + length);
        text(out, "MQTT");
        out.put_u8(4);
        let flags = u8::from(self.clean_session) << 1
            | u8::from(self.user.is_some()) << 7
            | u8::from(self.password.is_some()) << 6;
        out.put_u8(flags);
        out.put_u16(self.keep_alive);
        for part in texts.into_iter().flatten() {
            text(out, part);
        }
    }
}

impl Publish {
    fn encode(&self, out: &mut BytesMut) {
        let first = 0x30 | u8::from(self.again) << 3 | self.qos << 1 | u8::from(self.retain);
        let id = if self.qos > 0 { 2 } else { 0 };
        header(out, first, 2 + self.topic.len() + id + self.payload.len());
        text(out, &self.topic);
        if self.qos > 0 {
            out.put_u16(self.id);
        }
        out.put_slice(&self.payload);
    }

    fn decode(flags: u8, mut body: Bytes) -> Result<Publish, Malformed> {
        let qos = flags >> 1 & 3;
        if qos == 3 {
            return Err(Malformed("quality of service 3"));
        }
        let length = usize::from(number(&mut body)?);
        if body.len() < length {
            return Err(Malformed("a topic beyond the end"));
        }
        let topic = String::from_utf8(body.split_to(length).to_vec())
            .map_err(|_| Malformed("a topic that is not UTF-8"))?;
        let id = if qos > 0 { number(&mut body)? } else { 0 };
        Ok(Publish {
            topic,
            payload: body,
            qos,
            retain: flags & 1 != 0,
            again: flags & 8 != 0,
            id,
        })
    }
}

impl Received {
    /// Takes the first packet out of `input`, if it is whole.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Received>, Malformed> {
        let Some((start, length)) = frame(input)? else {
            return Ok(None);
        };
        if input.len() < start + length {
            input.reserve(start + length - input.len());
            return Ok(None);
        }
        let mut packet = input.split_to(start + length).freeze();
        let first = packet[0];
        packet.advance(start);
        let mut body = packet;
        Ok(Some(match first >> 4 {
            2 if body.len() == 2 => Received::Connected {
                session_present: body[0] & 1 != 0,
                code: body[1],
            },
            3 => Received::Publish(Publish::decode(first & 0xf, body)?),
            4 => Received::Acknowledged(number(&mut body)?),
            5 => Received::Recorded(number(&mut body)?),
            6 => Received::Released(number(&mut body)?),
            7 => Received::Completed(number(&mut body)?),
            9 if body.len() == 3 => Received::Subscribed {
                id: number(&mut body)?,
                code: body[0],
            },
            11 => Received::Unsubscribed(number(&mut body)?),
            13 => Received::Pong,
            _ => return Err(Malformed("an unknown type or length")),
        }))
    }
}

/// Where the body of the first packet starts, and how long it is.
fn frame(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0;
    for (at, byte) in input.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            if length > MAX_SIZE {
                return Err(Malformed("larger than 64 MiB"));
            }
            return Ok(Some((at + 1, length)));
        }
    }
    if input.len() > 4 {
        return Err(Malformed("a length of five bytes"));
    }
    Ok(None)
}

fn number(body: &mut Bytes) -> Result<u16, Malformed> {
    if body.len() < 2 {
        return Err(Malformed("too short"));
    }
    Ok(body.get_u16())
}

fn header(out: &mut BytesMut, first: u8, mut length: usize) {
    out.put_u8(first);
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

fn numbered(out: &mut BytesMut, first: u8, id: u16) {
    header(out, first, 2);
    out.put_u16(id);
}

/// Longer texts are refused before they come here.
fn text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(packet: &Sent) -> Vec<u8> {
        let mut out = BytesMut::new();
        packet.encode(&mut out);
        out.to_vec()
    }

    #[test]
    fn packets_have_the_form_of_the_standard() {
        let connect = Sent::Connect(Connect {
            client_id: "me".to_owned(),
            clean_session: true,
            keep_alive: 30,
            user: Some("u".to_owned()),
            password: Some("p".to_owned()),
        });
        assert_eq!(
            encoded(&connect),
            b"\x10\x14\0\x04MQTT\x04\xc2\0\x1e\0\x02me\0\x01u\0\x01p"
        );
        let subscribe = Sent::Subscribe {
            id: 7,
            filter: "a/+".to_owned(),
            qos: 1,
        };
        assert_eq!(encoded(&subscribe), b"\x82\x08\0\x07\0\x03a/+\x01");
        assert_eq!(encoded(&Sent::Release(5)), b"\x62\x02\0\x05");
    }

    #[test]
    fn a_message_is_read_as_it_was_written_in_any_pieces() {
        let publish = Publish {
            topic: "a/b".to_owned(),
            payload: Bytes::from(vec![b'x'; 200]),
            qos: 2,
            retain: true,
            again: true,
            id: 0x1234,
        };
        let bytes = encoded(&Sent::Publish(publish.clone()));
        let mut input = BytesMut::new();
        for byte in &bytes[..bytes.len() - 1] {
            input.put_u8(*byte);
            assert_eq!(Received::decode(&mut input), Ok(None));
        }
        input.put_u8(bytes[bytes.len() - 1]);
        input.put_slice(b"\xd0\0");
        let first = Received::decode(&mut input);
        assert_eq!(first, Ok(Some(Received::Publish(publish))));
        assert_eq!(Received::decode(&mut input), Ok(Some(Received::Pong)));
        assert_eq!(Received::decode(&mut input), Ok(None));
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        for bytes in [
            &b"\x30\xff\xff\xff\xff\xff"[..],
            b"\x30\xff\xff\xff\x7f",
            b"\x36\x02\0\0",
            b"\x32\x03\0\x05a",
            b"\x32\x03\0\x01a",
            b"\x40\x01\0",
            b"\x20\x01\0",
            b"\xf0\0",
        ] {
            let mut input = BytesMut::from(bytes);
            assert!(Received::decode(&mut input).is_err(), "{bytes:?}");
        }
    }
}
