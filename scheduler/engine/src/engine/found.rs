//! From what the store has to what the engine knows.

use jiff::Timestamp;
use outrider_proto::scheduler::v1::JobMetadata;
use outrider_proto::stored::v1::{Counter, StoredJob};
use prost::Message;

use super::{Delivery, Found};
use crate::key;
use crate::pool::Target;
use crate::timing::Timing;

impl Found {
    /// Reads the job `name` from its value, and that of its counter with the
    /// counter's revision.
    pub fn decode(name: &str, job: &[u8], counter: Option<(&[u8], i64)>) -> Result<Found, String> {
        let stored = StoredJob::decode(job).map_err(|error| error.to_string())?;
        let timing = Timing::of(&stored).map_err(|error| error.to_string())?;
        let spec = stored.job.unwrap_or_default();
        let metadata = metadata(&spec)?;
        let prefix = key::prefix(&metadata).map_err(|error| error.to_string())?;
        let short = name.strip_prefix(&prefix);
        let short = short.ok_or("its name is not one of its target")?;
        let target = Target::of(&metadata).ok_or("it has no target")?;
        let decoded = match counter {
            Some((bytes, _)) => Some(Counter::decode(bytes).map_err(|error| error.to_string())?),
            None => None,
        };
        Ok(Found {
            progress: timing.progress(decoded.as_ref()),
            counter_revision: counter.map_or(0, |(_, revision)| revision),
            timing,
            target,
            delivery: Box::new(Delivery {
                name: short.to_owned(),
                metadata,
                payload: spec.payload,
            }),
        })
    }

    /// Partition id and when the job is due, without its payload.
    pub fn schedule(
        job: &[u8],
        counter: Option<&[u8]>,
    ) -> Result<(u64, Option<Timestamp>), String> {
        let stored = StoredJob::decode(job).map_err(|error| error.to_string())?;
        let timing = Timing::of(&stored).map_err(|error| error.to_string())?;
        let counter = counter.and_then(|bytes| Counter::decode(bytes).ok());
        let progress = timing.progress(counter.as_ref());
        Ok((stored.partition_id, timing.next(progress)))
    }

    /// About how many bytes it has on a stream.
    pub(super) fn size(&self) -> usize {
        self.delivery
            .payload
            .as_ref()
            .map_or(0, Message::encoded_len)
            + self.delivery.metadata.encoded_len()
            + self.delivery.name.len()
            + 16
    }
}

/// Who a job is for, and who created it.
fn metadata(spec: &outrider_proto::stored::v1::Spec) -> Result<JobMetadata, String> {
    let any = spec.metadata.as_ref().ok_or("it has no metadata")?;
    JobMetadata::decode(any.value.as_slice()).map_err(|error| error.to_string())
}
