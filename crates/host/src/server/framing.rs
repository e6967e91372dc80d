//! Where gRPC messages begin and end in bytes that come in pieces:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use bytes::Buf as _;

/// Whether a message is compressed, and its length.
const PREFIX: usize = 5;

/// Follows the bytes of a body.
#[derive(Debug, Default)]
pub struct Framing {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    filled: usize,
    /// Bytes of the message at hand that are to come.
    left: usize,
}

/// What bytes are of.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A prefix that is not whole yet.
    Prefix,
    /// A prefix that is whole now; its message has so many bytes.
    Begin(usize),
    /// So many bytes of a message.
    Message(usize),
}

impl Framing {
    /// Takes the next piece off `data`; none where nothing is left of it.
    pub fn next(&mut self, data: &mut &[u8]) -> Option<Piece> {
        if data.is_empty() {
            return None;
        }
        if self.left > 0 {
            let passed = self.left.min(data.len());
            self.left -= passed;
            data.advance(passed);
            return Some(Piece::Message(passed));
        }
        let there = (PREFIX - self.filled).min(data.len());
        data.copy_to_slice(&mut self.prefix[self.filled..][..there]);
        self.filled += there;
        if self.filled < PREFIX {
            return Some(Piece::Prefix);
        }
        self.left = (&self.prefix[1..]).get_u32() as usize;
        self.filled = 0;
        Some(Piece::Begin(self.left))
    }

    /// Bytes of the message at hand that are to come.
    pub fn left(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bytes = b"\0\0\0\0\x02ab\x01\0\0\0\0\0\0\0\0\x01c";
        for cut in 0..=bytes.len() {
            let mut framing = Framing::default();
            let (mut begun, mut passed) = (Vec::new(), 0);
            for mut data in [&bytes[..cut], &bytes[cut..]] {
                while let Some(piece) = framing.next(&mut data) {
                    match piece {
                        Piece::Prefix => {}
                        Piece::Begin(length) => begun.push(length),
                        Piece::Message(length) => passed += length,
                    }
                }
            }
            assert_eq!((begun, passed, framing.left()), (vec![2, 0, 1], 3, 0));
        }
    }
}
