//! Streams of sidecars, and which of them gets a job.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outrider_kit::rendezvous;
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

/// The actor that a job is for.
pub(crate) fn actor_of(metadata: &JobMetadata) -> Option<&str> {
    match metadata.target.as_ref()?.r#type.as_ref()? {
        Type::Job(_) => None,
        Type::Actor(actor) => Some(&actor.id),
    }
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
    address: Option<Arc<str>>,
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
    /// Due, and no stream has room, or it is not known which one is to take them.
    crowded: BTreeMap<u64, u32>,
    /// Due, and the streams with this address have no room: others do not take
    /// them.
    crowded_at: BTreeMap<Arc<str>, BTreeMap<u64, u32>>,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.staged.is_empty() && !self.is_crowded()
    }

    fn is_crowded(&self) -> bool {
        !self.crowded.is_empty() || !self.crowded_at.is_empty()
    }

    /// The streams are others now, and so may be those that are to take the jobs
    /// that wait.
    fn mix(&mut self) {
        for mut waiting in std::mem::take(&mut self.crowded_at).into_values() {
            self.crowded.append(&mut waiting);
        }
    }

    /// Where the oldest job waits that a stream with this address may take.
    fn first(&self, address: Option<&Arc<str>>) -> Option<(u64, bool)> {
        let common = self.crowded.first_key_value();
        let own = address.and_then(|it| self.crowded_at.get(it)?.first_key_value());
        let common = common.map(|(seniority, _)| (*seniority, false));
        let own = own.map(|(seniority, _)| (*seniority, true));
        common.into_iter().chain(own).min()
    }

    fn pop_first(&mut self, address: Option<&Arc<str>>) -> Option<u32> {
        let (_, is_own) = self.first(address)?;
        let Some(address) = address.filter(|_| is_own) else {
            return self.crowded.pop_first().map(|(_, slot)| slot);
        };
        let own = self.crowded_at.get_mut(address)?;
        let first = own.pop_first();
        if own.is_empty() {
            self.crowded_at.remove(address);
        }
        first.map(|(_, slot)| slot)
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
    /// On the streams with this address, or on all.
    NoRoom(Option<Arc<str>>),
    Stream(StreamId),
}

impl Pool {
    /// Returns jobs that waited for it, as many as it has room for; they are in no
    /// list any more. The others wait for room from now on.
    pub fn open(
        &mut self,
        id: StreamId,
        targets: Vec<Target>,
        address: Option<Arc<str>>,
        gates: Vec<GateKey>,
    ) -> Vec<u32> {
        for target in &targets {
            let group = self.groups.entry(target.clone()).or_default();
            group.streams.push(id);
            group.crowded.append(&mut group.staged);
            group.mix();
        }
        let stream = Stream {
            targets,
            address,
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
        let address = stream.address.as_ref();
        let first = |groups: &HashMap<Target, Group>, target: &Target| {
            let (seniority, _) = groups.get(target)?.first(address)?;
            Some(Reverse(seniority))
        };
        let targets = stream.targets.iter();
        let waiting = targets.filter_map(|target| Some((first(&self.groups, target)?, target)));
        let mut waiting: BinaryHeap<_> = waiting.collect();
        while woken.len() < most
            && let Some((_, target)) = waiting.pop()
        {
            let group = self.groups.get_mut(target);
            woken.extend(group.and_then(|group| group.pop_first(address)));
            waiting.extend(first(&self.groups, target).map(|first| (first, target)));
        }
        woken
    }

    /// Returns the stream, and jobs that waited for room and have nobody now, or
    /// another stream.
    pub fn close(&mut self, id: StreamId) -> Option<(Stream, Vec<u32>)> {
        let stream = self.streams.remove(&id)?;
        let mut woken = Vec::new();
        for target in &stream.targets {
            let Some(group) = self.groups.get_mut(target) else {
                continue;
            };
            group.streams.retain(|it| *it != id);
            if group.streams.is_empty() {
                group.mix();
                woken.extend(std::mem::take(&mut group.crowded).into_values());
            } else if !group.crowded_at.is_empty() {
                group.mix();
                let some = (0..WOKEN_AT_ONCE).map_while(|_| group.pop_first(None));
                woken.extend(some);
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

    /// Round robin over the streams that have room; if all of them have addresses
    /// a job for an actor is for those of its owner.
    pub fn choose(&mut self, target: &Target, actor: Option<&str>) -> Choice {
        let owner = actor.and_then(|id| self.owner(target, id));
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
            let takes = |it: &Stream| {
                it.has_room() && (owner.is_none() || it.address.as_ref() == owner.as_ref())
            };
            if self.streams.get(&id).is_some_and(takes) {
                group.next = index + 1;
                return Choice::Stream(id);
            }
        }
        Choice::NoRoom(owner)
    }

    /// The address of the sidecar that has the actor. None if one of those that
    /// host the type does not say where it is.
    fn owner(&self, target: &Target, id: &str) -> Option<Arc<str>> {
        let streams = &self.groups.get(target)?.streams;
        let addresses = streams
            .iter()
            .map(|it| self.streams.get(it)?.address.as_ref());
        let addresses: Vec<&Arc<str>> = addresses.collect::<Option<_>>()?;
        let owner = rendezvous::owner(addresses.iter().map(|it| &***it), id)?;
        addresses
            .iter()
            .find(|it| &****it == owner)
            .map(|it| (**it).clone())
    }

    pub fn stage(&mut self, target: &Target, seniority: u64, slot: u32) {
        let group = self.groups.entry(target.clone()).or_default();
        group.staged.insert(seniority, slot);
    }

    /// Returns another job that waits and of which it is not known which stream is
    /// to take it: it may be one with room.
    pub fn crowd(
        &mut self,
        target: &Target,
        address: Option<Arc<str>>,
        (seniority, slot): (u64, u32),
    ) -> Option<u32> {
        let group = self.groups.entry(target.clone()).or_default();
        match address {
            None => {
                group.crowded.insert(seniority, slot);
                None
            }
            Some(address) => {
                let waiting = group.crowded_at.entry(address).or_default();
                waiting.insert(seniority, slot);
                group.pop_first(None)
            }
        }
    }

    /// Takes a job out of what it waits in.
    pub fn forget(&mut self, target: &Target, seniority: u64) {
        if let Some(group) = self.groups.get_mut(target) {
            group.staged.remove(&seniority);
            group.crowded.remove(&seniority);
            group.crowded_at.retain(|_, waiting| {
                waiting.remove(&seniority);
                !waiting.is_empty()
            });
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
        if !self.groups.values().any(Group::is_crowded) {
            return Vec::new();
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.roomy(id)).collect()
    }

    pub fn staged(&self) -> usize {
        self.groups.values().map(|it| it.staged.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            kind: Kind::Actor,
            namespace: "ns".into(),
            id: "cat".into(),
        }
    }

    fn open(pool: &mut Pool, id: StreamId, address: Option<&str>) -> Vec<u32> {
        pool.open(id, vec![target()], address.map(Into::into), Vec::new())
    }

    /// As long as nobody takes anything off it.
    fn fill(pool: &mut Pool, id: StreamId) {
        pool.streams.get_mut(&id).unwrap().unsent = MOST_UNSENT;
    }

    const HOSTS: [&str; 3] = ["10.0.0.1:50002", "10.0.0.2:50002", "10.0.0.3:50002"];

    fn three() -> Pool {
        let mut pool = Pool::default();
        for (id, host) in (1..).zip(HOSTS) {
            open(&mut pool, id, Some(host));
        }
        pool
    }

    #[test]
    fn a_reminder_is_for_the_sidecar_that_has_the_actor() {
        let mut pool = three();
        let ids = ["actor-1", "actor-2", "actor-3", "actor-4", "actor-5"];
        for (id, stream) in ids.into_iter().zip([2, 3, 1, 1, 3]) {
            let choice = pool.choose(&target(), Some(id));
            assert_eq!(choice, Choice::Stream(stream), "{id}");
        }
        // A sidecar that has two streams takes turns.
        open(&mut pool, 4, Some(HOSTS[1]));
        let mut chosen = || pool.choose(&target(), Some("actor-1"));
        let both = [chosen(), chosen(), chosen()];
        assert!(both.contains(&Choice::Stream(2)) && both.contains(&Choice::Stream(4)));
        pool.close(2);
        pool.close(4);
        let next = pool.choose(&target(), Some("actor-1"));
        assert_eq!(next, Choice::Stream(1), "the second best score");
    }

    #[test]
    fn one_sidecar_without_an_address_has_all_take_turns() {
        let mut pool = three();
        open(&mut pool, 4, None);
        let chosen = |pool: &mut Pool| pool.choose(&target(), Some("actor-1"));
        let all: Vec<Choice> = (0..4).map(|_| chosen(&mut pool)).collect();
        for id in 1..=4 {
            assert!(all.contains(&Choice::Stream(id)), "{id}");
        }
        pool.close(4);
        assert_eq!(chosen(&mut pool), Choice::Stream(2));
        assert_eq!(chosen(&mut pool), Choice::Stream(2));
    }

    #[test]
    fn a_sidecar_without_room_does_not_hold_up_the_jobs_of_others() {
        let mut pool = three();
        fill(&mut pool, 2);
        let owner: Arc<str> = HOSTS[1].into();
        let choice = pool.choose(&target(), Some("actor-1"));
        assert_eq!(choice, Choice::NoRoom(Some(owner.clone())));
        // Others that wait are looked at one after the other, each once.
        for slot in [20, 21] {
            assert_eq!(pool.crowd(&target(), None, (u64::from(slot), slot)), None);
        }
        let next = pool.crowd(&target(), Some(owner.clone()), (1, 10));
        assert_eq!(next, Some(20));
        let next = pool.crowd(&target(), Some(owner.clone()), (2, 11));
        assert_eq!(next, Some(21));
        assert_eq!(pool.roomy(1), [0; 0], "not for this one");
        pool.streams.get_mut(&2).unwrap().unsent = 0;
        assert_eq!(pool.roomy(2), [10, 11]);
        assert!(!pool.groups[&target()].is_crowded());
    }

    #[test]
    fn what_waits_for_a_sidecar_that_goes_is_looked_at_again() {
        let mut pool = three();
        fill(&mut pool, 2);
        let owner: Arc<str> = HOSTS[1].into();
        for slot in 0..100 {
            pool.crowd(&target(), Some(owner.clone()), (slot.into(), slot));
        }
        pool.forget(&target(), 3);
        let (_, woken) = pool.close(2).unwrap();
        assert_eq!(woken.len(), WOKEN_AT_ONCE);
        assert_eq!(
            open(&mut pool, 4, Some("10.0.0.4:50002")).len(),
            99 - WOKEN_AT_ONCE
        );
        // Nobody is left: all of it is staged by those who look.
        pool.crowd(&target(), Some(owner), (1, 1));
        for id in [1, 3] {
            pool.close(id).unwrap();
        }
        pool.close(4).unwrap();
        assert!(pool.groups.is_empty());
    }
}
