//! DNS messages as multicast DNS uses them: RFC 1035 section 4, RFC 2782 and
//! RFC 6762 section 18.

use std::net::{Ipv4Addr, Ipv6Addr};

const A: u16 = 1;
pub const PTR: u16 = 12;
pub const TXT: u16 = 16;
const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const ANY: u16 = 255;

pub const INTERNET: u16 = 1;
/// In the class of a question: answer to the sender alone. In that of a record:
/// other records of this name and type are outdated.
pub const TOP_BIT: u16 = 0x8000;

pub const RESPONSE: u16 = 0x8000;
pub const AUTHORITATIVE: u16 = 0x0400;

/// A pointer needs two bytes, so a name of 255 bytes has fewer jumps than this.
const MAX_JUMPS: usize = 128;

/// A domain name: labels, each after its length, without the root's zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Reads dotted text. `None` if a label is empty or longer than 63 bytes,
    /// or the whole longer than 255.
    pub fn new(text: &str) -> Option<Name> {
        let mut wire = Vec::with_capacity(text.len() + 1);
        for label in text.trim_matches('.').split('.') {
            let length = u8::try_from(label.len()).ok()?;
            if length == 0 || length > 63 {
                return None;
            }
            wire.push(length);
            wire.extend_from_slice(label.as_bytes());
        }
        (wire.len() < 255).then_some(Name(wire))
    }

    /// The dotted text of what is before `suffix`, if the name ends in that.
    pub fn before(&self, suffix: &Name) -> Option<String> {
        let mut rest = &self.0[..];
        let mut text = String::new();
        while rest != suffix.0 {
            let (&length, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(length.into())?;
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(std::str::from_utf8(label).ok()?);
            rest = tail;
        }
        (!text.is_empty()).then_some(text)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub name: Name,
    pub kind: u16,
    pub class: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub name: Name,
    pub class: u16,
    /// In seconds; 0 means that the record is deleted.
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Pointer(Name),
    Service {
        port: u16,
        target: Name,
    },
    Text(Vec<Vec<u8>>),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// Of a type that is not used here.
    Other {
        kind: u16,
        bytes: Vec<u8>,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    pub questions: Vec<Question>,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

impl Message {
    pub fn is_response(&self) -> bool {
        self.flags & RESPONSE != 0
    }

    /// The records of all sections.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let sections = [&self.answers, &self.authorities, &self.additionals];
        sections.into_iter().flatten()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        put(&mut out, self.id);
        put(&mut out, self.flags);
        put(&mut out, self.questions.len() as u16);
        for section in [&self.answers, &self.authorities, &self.additionals] {
            put(&mut out, section.len() as u16);
        }
        for question in &self.questions {
            put_name(&mut out, &question.name);
            put(&mut out, question.kind);
            put(&mut out, question.class);
        }
        for record in self.records() {
            record.encode(&mut out);
        }
        out
    }

    /// `None` if the packet is not a well-formed message.
    pub fn decode(packet: &[u8]) -> Option<Message> {
        let mut reader = Reader { packet, at: 0 };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = reader.u16()?;
        }
        let mut message = Message {
            id,
            flags,
            ..Message::default()
        };
        for _ in 0..counts[0] {
            message.questions.push(Question {
                name: reader.name()?,
                kind: reader.u16()?,
                class: reader.u16()?,
            });
        }
        let sections = [
            &mut message.answers,
            &mut message.authorities,
            &mut message.additionals,
        ];
        for (section, count) in sections.into_iter().zip(&counts[1..]) {
            for _ in 0..*count {
                section.push(reader.record()?);
            }
        }
        Some(message)
    }
}

impl Record {
    fn encode(&self, out: &mut Vec<u8>) {
        put_name(out, &self.name);
        put(out, self.data.kind());
        put(out, self.class);
        out.extend_from_slice(&self.ttl.to_be_bytes());
        let length_at = out.len();
        put(out, 0);
        match &self.data {
            Data::Pointer(name) => put_name(out, name),
            Data::Service { port, target } => {
                // Priority and weight: one instance is as good as another.
                out.extend_from_slice(&[0; 4]);
                put(out, *port);
                put_name(out, target);
            }
            Data::Text(strings) => {
                for string in strings {
                    let string = &string[..string.len().min(255)];
                    out.push(string.len() as u8);
                    out.extend_from_slice(string);
                }
            }
            Data::V4(address) => out.extend_from_slice(&address.octets()),
            Data::V6(address) => out.extend_from_slice(&address.octets()),
            Data::Other { bytes, .. } => out.extend_from_slice(bytes),
        }
        let length = (out.len() - length_at - 2) as u16;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
}

impl Data {
    fn kind(&self) -> u16 {
        match self {
            Data::Pointer(_) => PTR,
            Data::Service { .. } => SRV,
            Data::Text(_) => TXT,
            Data::V4(_) => A,
            Data::V6(_) => AAAA,
            Data::Other { kind, .. } => *kind,
        }
    }
}

fn put(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    out.extend_from_slice(&name.0);
    out.push(0);
}

/// A position in a packet, which can have any content.
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.packet.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A name. The rest of it may be elsewhere in the packet.
    fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::new();
        let mut reader = Reader {
            packet: self.packet,
            at: self.at,
        };
        let mut jumps = 0;
        loop {
            let [length] = reader.array()?;
            match length {
                0 => break,
                1..=63 => {
                    wire.push(length);
                    wire.extend_from_slice(reader.take(length.into())?);
                    if wire.len() >= 255 {
                        return None;
                    }
                }
                0xc0.. => {
                    let [low] = reader.array()?;
                    if jumps == 0 {
                        self.at = reader.at;
                    }
                    jumps += 1;
                    if jumps > MAX_JUMPS {
                        return None;
                    }
                    reader.at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                }
                _ => return None,
            }
        }
        if jumps == 0 {
            self.at = reader.at;
        }
        Some(Name(wire))
    }

    fn record(&mut self) -> Option<Record> {
        let name = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = u32::from_be_bytes(self.array()?);
        let length = self.u16()?;
        let start = self.at;
        let bytes = self.take(length.into())?;
        // Names may point before the record but not read past its end.
        let mut data = Reader {
            packet: &self.packet[..self.at],
            at: start,
        };
        let data = match kind {
            PTR => Data::Pointer(data.name()?),
            SRV => {
                let [_priority, _weight, port] = [data.u16()?, data.u16()?, data.u16()?];
                Data::Service {
                    port,
                    target: data.name()?,
                }
            }
            TXT => {
                let mut strings = Vec::new();
                while data.at < self.at {
                    let [length] = data.array()?;
                    strings.push(data.take(length.into())?.to_vec());
                }
                Data::Text(strings)
            }
            A => Data::V4(data.array::<4>()?.into()),
            AAAA => Data::V6(data.array::<16>()?.into()),
            kind => Data::Other {
                kind,
                bytes: bytes.to_vec(),
            },
        };
        Some(Record {
            name,
            class,
            ttl,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Name> {
        vec("[a-zA-Z0-9:_-]{1,20}", 1..6)
            .prop_map(|labels| Name::new(&labels.join(".")).expect("is short enough"))
    }

    fn records() -> impl Strategy<Value = Record> {
        let data = prop_oneof![
            names().prop_map(Data::Pointer),
            (any::<u16>(), names()).prop_map(|(port, target)| Data::Service { port, target }),
            vec(vec(any::<u8>(), 0..256), 0..4).prop_map(Data::Text),
            any::<[u8; 4]>().prop_map(|octets| Data::V4(octets.into())),
            any::<[u8; 16]>().prop_map(|octets| Data::V6(octets.into())),
            vec(any::<u8>(), 0..40).prop_map(|bytes| Data::Other { kind: 47, bytes }),
        ];
        (names(), any::<u16>(), any::<u32>(), data).prop_map(|(name, class, ttl, data)| Record {
            name,
            class,
            ttl,
            data,
        })
    }

    prop_compose! {
        fn messages()(
            id: u16,
            flags: u16,
            questions in vec((names(), any::<u16>(), any::<u16>()), 0..4),
            answers in vec(records(), 0..4),
            authorities in vec(records(), 0..3),
            additionals in vec(records(), 0..4),
        ) -> Message {
            let questions = questions
                .into_iter()
                .map(|(name, kind, class)| Question { name, kind, class })
                .collect();
            Message { id, flags, questions, answers, authorities, additionals }
        }
    }

    proptest! {
        #[test]
        fn encoded_messages_decode_to_the_same(message in messages()) {
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        #[test]
        fn a_truncated_message_is_an_error(message in messages(), cut: prop::sample::Index) {
            let packet = message.encode();
            prop_assert_eq!(Message::decode(&packet[..cut.index(packet.len())]), None);
        }

        #[test]
        fn random_bytes_do_not_panic(packet in vec(any::<u8>(), 0..600)) {
            let _ = Message::decode(&packet);
        }

        /// Bytes of a good message are changed, pointers put among them.
        #[test]
        fn damaged_messages_do_not_panic(
            message in messages(),
            damage in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0xc0)]), 1..20),
        ) {
            let mut packet = message.encode();
            for (at, byte) in damage {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            if let Some(message) = Message::decode(&packet) {
                for record in message.records() {
                    prop_assert!(record.name.0.len() < 255);
                }
            }
        }
    }

    #[test]
    fn compressed_names_are_read() {
        // One question "a.local", and an answer whose name points at it.
        let mut packet = vec![0, 7, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        packet.extend(b"\x01a\x05local\0\0\x0c\0\x01");
        packet.extend(b"\xc0\x0c\0\x0c\0\x01\0\0\0\x78\0\x04\x01b\xc0\x0c");
        let message = Message::decode(&packet).expect("is right");
        assert_eq!(message.id, 7);
        assert_eq!(message.answers[0].name, message.questions[0].name);
        let expected = Name::new("b.a.local.").expect("is short");
        assert_eq!(message.answers[0].data, Data::Pointer(expected));
    }

    #[test]
    fn a_name_that_points_to_itself_is_an_error() {
        let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(b"\xc0\x0c\0\x0c\0\x01");
        assert_eq!(Message::decode(&packet), None);
    }

    #[test]
    fn names_are_made_of_valid_text_and_split_by_suffix() {
        let local = Name::new("local.").expect("is short");
        let name = Name::new("my.app.local.").expect("is short");
        assert_eq!(name.before(&local).as_deref(), Some("my.app"));
        assert_eq!(local.before(&local), None);
        assert_eq!(Name::new("my.app").expect("is short").before(&local), None);
        assert_eq!(Name::new(&"a".repeat(64)), None);
        assert_eq!(Name::new("a..b"), None);
        assert_eq!(Name::new(&vec!["abc"; 70].join(".")), None);
    }
}
