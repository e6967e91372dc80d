//! Streams of sidecars, and which of them gets a job.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrider_proto::scheduler::v1::JobMetadata;
use outrider_proto::scheduler::v1::job_target_metadata::Type;

use crate::engine::{JobRef, Kind, StreamId};
use crate::gates::GateKey;
use crate::timing::{Progress, Timing};

/// Bytes of jobs that wait to be sent on one stream: a sidecar that does not read
/// costs no more than this, and one message.
const MOST_BYTES: usize = 1 << 20;
/// Jobs that wait to be sent on one stream.
const MOST_UNSENT: usize = 1024;
/// Jobs of one stream that are not answered yet.
const MOST_UNANSWERED: usize = 65_536;
/// How many jobs are looked at again when a stream is empty, and when it has room
/// for one more: each is read from the store anew.
const WOKEN_AT_ONCE: usize = 64;
const WOKEN_FOR_ONE: usize = 2;

/// Who can take a job: the sidecars of an application, or those that host a type
/// of actors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub kind: Kind,
    pub namespace: Arc<str>,
    /// App id or actor type.
    pub id: Arc<str>,
}

impl Target {
    pub fn of(metadata: &JobMetadata) -> Option<Target> {
        let (kind, id) = match metadata.target.as_ref()?.r#type.as_ref()? {
            Type::Job(_) => (Kind::Job, &metadata.app_id),
            Type::Actor(actor) => (Kind::Actor, &actor.r#type),
        };
        Some(Target {
            kind,
            namespace: metadata.namespace.as_str().into(),
            id: id.as_str().into(),
        })
    }
}

/// A job that was given to a stream and is not answered yet.
#[derive(Debug)]
pub(crate) struct Flight {
    pub job: JobRef,
    pub kind: Kind,
    pub seniority: u64,
    pub timing: Box<Timing>,
    pub progress: Progress,
    /// The time that was due.
    pub tick: jiff::Timestamp,
    /// Of the counter that was read.
    pub counter_revision: i64,
    pub gates: Vec<GateKey>,
    pub since: Duration,
    /// Bytes in the stream's queue; 0 when it is sent.
    pub unsent: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Stream {
    targets: Vec<Target>,
    pub gates: Vec<GateKey>,
    pub flights: HashMap<u64, Flight>,
    last_id: u64,
    unsent: usize,
    unsent_bytes: usize,
}

impl Stream {
    fn has_room(&self) -> bool {
        self.unsent < MOST_UNSENT
            && self.unsent_bytes < MOST_BYTES
            && self.flights.len() < MOST_UNANSWERED
    }
}

/// The streams and waiting jobs of a target. Jobs are in the order of seniority.
#[derive(Debug, Default)]
struct Group {
    streams: Vec<StreamId>,
    next: usize,
    /// Due, and nobody is there.
    staged: BTreeMap<u64, u32>,
    /// Due, and no stream has room.
    crowded: BTreeMap<u64, u32>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.staged.is_empty() && self.crowded.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub streams: HashMap<StreamId, Stream>,
    groups: HashMap<Target, Group>,
}

/// Which stream takes a job.
#[derive(Debug, PartialEq)]
pub(crate) enum Choice {
    Nobody,
    NoRoom,
    Stream(StreamId),
}

impl Pool {
    /// Returns jobs that waited for it, as many as it has room for; they are in no
    /// list any more. The others wait for room from now on.
    pub fn open(&mut self, id: StreamId, targets: Vec<Target>, gates: Vec<GateKey>) -> Vec<u32> {
        for target in &targets {
            let group = self.groups.entry(target.clone()).or_default();
            group.streams.push(id);
            group.crowded.append(&mut group.staged);
        }
        let stream = Stream {
            targets,
            gates,
            ..Stream::default()
        };
        self.streams.insert(id, stream);
        self.oldest(id, MOST_UNSENT)
    }

    /// The oldest jobs that wait for room on a stream; they are in no list any
    /// more.
    fn oldest(&mut self, id: StreamId, most: usize) -> Vec<u32> {
        let mut woken = Vec::new();
        let Some(stream) = self.streams.get(&id) else {
            return woken;
        };
        let first = |groups: &HashMap<Target, Group>, target: &Target| {
            let (seniority, _) = groups.get(target)?.crowded.first_key_value()?;
            Some(Reverse(*seniority))
        };
        let targets = stream.targets.iter();
        let waiting = targets.filter_map(|target| Some((first(&self.groups, target)?, target)));
        let mut waiting: BinaryHeap<_> = waiting.collect();
        while woken.len() < most
            && let Some((_, target)) = waiting.pop()
        {
            let group = self.groups.get_mut(target);
            let oldest = group.and_then(|group| group.crowded.pop_first());
            woken.extend(oldest.map(|(_, slot)| slot));
            waiting.extend(first(&self.groups, target).map(|first| (first, target)));
        }
        woken
    }

    /// Returns the stream, and the jobs that waited for room and have nobody now.
    pub fn close(&mut self, id: StreamId) -> Option<(Stream, Vec<u32>)> {
        let stream = self.streams.remove(&id)?;
        let mut woken = Vec::new();
        for target in &stream.targets {
            let Some(group) = self.groups.get_mut(target) else {
                continue;
            };
            group.streams.retain(|it| *it != id);
            if group.streams.is_empty() {
                woken.extend(std::mem::take(&mut group.crowded).into_values());
            }
            self.drop_empty(target);
        }
        Some((stream, woken))
    }

    fn drop_empty(&mut self, target: &Target) {
        if self.groups.get(target).is_some_and(Group::is_empty) {
            self.groups.remove(target);
        }
    }

    /// Round robin over the streams that have room.
    pub fn choose(&mut self, target: &Target) -> Choice {
        let Some(group) = self.groups.get_mut(target) else {
            return Choice::Nobody;
        };
        let count = group.streams.len();
        if count == 0 {
            return Choice::Nobody;
        }
        let order = (group.next..group.next + count).map(|it| it % count);
        for index in order {
            let id = group.streams[index];
            if self.streams.get(&id).is_some_and(Stream::has_room) {
                group.next = index + 1;
                return Choice::Stream(id);
            }
        }
        Choice::NoRoom
    }

    pub fn stage(&mut self, target: &Target, seniority: u64, slot: u32) {
        let group = self.groups.entry(target.clone()).or_default();
        group.staged.insert(seniority, slot);
    }

    pub fn crowd(&mut self, target: &Target, seniority: u64, slot: u32) {
        let group = self.groups.entry(target.clone()).or_default();
        group.crowded.insert(seniority, slot);
    }

    /// Takes a job out of what it waits in.
    pub fn forget(&mut self, target: &Target, seniority: u64) {
        if let Some(group) = self.groups.get_mut(target) {
            group.staged.remove(&seniority);
            group.crowded.remove(&seniority);
            self.drop_empty(target);
        }
    }

    /// The id that the job has on the stream.
    pub fn take_off(&mut self, id: StreamId, flight: Flight) -> u64 {
        let stream = self.streams.entry(id).or_default();
        stream.last_id += 1;
        stream.unsent += 1;
        stream.unsent_bytes += flight.unsent;
        stream.flights.insert(stream.last_id, flight);
        stream.last_id
    }

    /// A job has left the queue of its stream. Returns jobs that may have room.
    pub fn sent(&mut self, id: StreamId, flight: u64) -> Vec<u32> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Vec::new();
        };
        if let Some(flight) = stream.flights.get_mut(&flight) {
            stream.unsent = stream.unsent.saturating_sub(1);
            let bytes = std::mem::take(&mut flight.unsent);
            stream.unsent_bytes = stream.unsent_bytes.saturating_sub(bytes);
        }
        self.roomy(id)
    }

    pub fn land(&mut self, id: StreamId, flight: u64) -> Option<Flight> {
        let stream = self.streams.get_mut(&id)?;
        let flight = stream.flights.remove(&flight)?;
        if flight.unsent > 0 {
            stream.unsent = stream.unsent.saturating_sub(1);
            stream.unsent_bytes = stream.unsent_bytes.saturating_sub(flight.unsent);
        }
        Some(flight)
    }

    /// The oldest jobs that wait for room on this stream, if it has any; they are
    /// in no list any more.
    pub fn roomy(&mut self, id: StreamId) -> Vec<u32> {
        let Some(stream) = self.streams.get(&id).filter(|it| it.has_room()) else {
            return Vec::new();
        };
        let most = match stream.unsent {
            0 => WOKEN_AT_ONCE,
            _ => WOKEN_FOR_ONE,
        };
        self.oldest(id, most)
    }

    /// The same for all streams.
    pub fn all_roomy(&mut self) -> Vec<u32> {
        let crowded = |group: &Group| !group.crowded.is_empty();
        if !self.groups.values().any(crowded) {
            return Vec::new();
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.roomy(id)).collect()
    }

    pub fn staged(&self) -> usize {
        self.groups.values().map(|it| it.staged.len()).sum()
    }
}
