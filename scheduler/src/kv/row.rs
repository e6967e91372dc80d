//! How a key's revisions and its value stand in one row of the embedded store.

use bytes::Bytes;
use outrider_proto::etcd::mvccpb::KeyValue;

/// Four numbers of eight bytes.
const HEAD: usize = 32;

/// What a key has besides its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

impl Head {
    pub fn encode(self, value: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(HEAD + value.len());
        for number in [
            self.create_revision,
            self.mod_revision,
            self.version,
            self.lease,
        ] {
            row.extend(number.to_le_bytes());
        }
        row.extend(value);
        row
    }

    /// Nothing for a row that is not one of ours.
    pub fn decode(row: &[u8]) -> Option<(Head, &[u8])> {
        let (head, value) = row.split_at_checked(HEAD)?;
        let mut numbers = head
            .as_chunks::<8>()
            .0
            .iter()
            .map(|it| i64::from_le_bytes(*it));
        let head = Head {
            create_revision: numbers.next()?,
            mod_revision: numbers.next()?,
            version: numbers.next()?,
            lease: numbers.next()?,
        };
        Some((head, value))
    }

    pub fn key_value(self, key: &[u8], value: &[u8]) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: Bytes::copy_from_slice(value),
            lease: self.lease,
        }
    }
}
