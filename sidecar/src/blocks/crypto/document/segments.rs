//! The segments of a document, one after the other.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use super::key::PayloadKey;
use super::{Failure, Result, Source};

/// Bytes of a segment before it is encrypted, and what encryption adds.
pub const SIZE: usize = 64 << 10;
pub const TAG: usize = 16;

/// What is done with segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Seal,
    Open,
}

/// Cuts what comes in into segments. Holds one of them, and the piece that
/// came last.
pub struct Segments {
    key: PayloadKey,
    work: Work,
    /// Nothing once all has come.
    source: Option<Source>,
    buffer: BytesMut,
    /// The number of the next segment; nothing when there is none.
    next: Option<u32>,
}

impl Segments {
    pub fn sealing(key: PayloadKey, source: Source) -> Self {
        Self::new(key, Work::Seal, source)
    }

    pub fn opening(key: PayloadKey, source: Source) -> Self {
        Self::new(key, Work::Open, source)
    }

    fn new(key: PayloadKey, work: Work, source: Source) -> Self {
        Self {
            key,
            work,
            source: Some(source),
            buffer: BytesMut::new(),
            next: Some(0),
        }
    }

    /// The next segment. After an error there is none.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(index) = self.next.take() else {
            return Ok(None);
        };
        let size = match self.work {
            Work::Seal => SIZE,
            Work::Open => SIZE + TAG,
        };
        // Whether a segment is the last one shows in what follows it.
        while self.buffer.len() <= size
            && let Some(source) = &mut self.source
        {
            match source.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece?),
                None => self.source = None,
            }
        }
        let is_last = self.buffer.len() <= size;
        let end = size.min(self.buffer.len());
        let mut segment = self.buffer.split_to(end);
        if segment.is_empty() {
            return Ok(None);
        }
        let worked = match self.work {
            Work::Seal => self.key.seal(index, is_last, &mut segment),
            Work::Open => self.key.open(index, is_last, &mut segment),
        };
        worked
            .map_err(|cause| Failure::new(format!("error processing segment {index}: {cause}")))?;
        if !is_last {
            let next = index.checked_add(1);
            self.next = Some(next.ok_or_else(|| Failure::new("input stream is too large"))?);
        }
        Ok(Some(segment.freeze()))
    }
}
