//! Jobs come, become due, and go.

use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    Committed, Committing, Effect, Engine, Entry, Event, JobRef, Member, Now, Overdue, Place,
    Settings, State, Step, Wait,
};
use crate::gates::{GateKey, Gates};
use crate::pool::Pool;

/// Between attempts to read a job that the store does not give, and the first
/// pause between attempts to write.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// For the member that had a job before, and lives, to finish what is under way.
const HANDOVER: SignedDuration = SignedDuration::from_secs(1);
/// Between attempts to read a job that cannot be understood.
const BROKEN_PAUSE: Duration = Duration::from_secs(60);

impl Engine {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            members: Vec::new(),
            own: 0,
            entries: Vec::new(),
            free: Vec::new(),
            names: Default::default(),
            due: Default::default(),
            retries: Default::default(),
            queue: Default::default(),
            reads: Default::default(),
            passed: Default::default(),
            busy: Default::default(),
            pool: Pool::default(),
            gates: Gates::default(),
            last_seniority: 0,
        }
    }

    /// Takes note of what has happened, and says what is to be done.
    pub fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Stored {
                name,
                revision,
                partition,
                due,
            } => self.stored(now, name, revision, (partition, due), effects),
            Event::Removed { name, revision } => self.removed(now, &name, revision, effects),
            Event::Read { job, read } => self.read(now, job, read, effects),
            Event::Committed { job, result } => self.committed(now, job, result),
            Event::Opened {
                stream,
                subscription,
            } => self.opened(now, stream, subscription),
            Event::Closed { stream } => self.closed(now, stream, effects),
            Event::Sent { stream, id } => {
                let woken = self.pool.sent(stream, id);
                self.queue_all(now, woken);
            }
            Event::Answered { stream, id, answer } => {
                self.answered(now, (stream, id), answer, effects);
            }
            Event::Members { members, own } => self.set_members(now, members, own, effects),
            Event::Tick => {
                // Those that were woken for a place may be gone meanwhile.
                let woken = self.pool.all_roomy();
                self.queue_all(now, woken);
            }
        }
        self.pass_time(now, effects);
        self.start_reads(effects);
    }

    /// How long nothing has to be done unless something happens.
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let due = self.due.first().map(|(at, _)| {
            let left = at.duration_since(now.wall);
            Duration::try_from(left.max(SignedDuration::ZERO)).unwrap_or_default()
        });
        let retry = self
            .retries
            .first()
            .map(|(at, _)| at.saturating_sub(now.steady));
        [due, retry].into_iter().flatten().min()
    }

    /// The job that has been on its way between store and stream for longest.
    pub fn overdue(&self, now: Now) -> Option<Overdue> {
        let (since, slot) = self.busy.first()?;
        let entry = self.entry(*slot)?;
        Some(Overdue {
            name: entry.name.clone(),
            since: now.steady.saturating_sub(*since),
        })
    }

    pub fn jobs(&self) -> usize {
        self.names.len()
    }

    /// Due, without anybody who could take them.
    pub fn staged(&self) -> usize {
        self.pool.staged()
    }

    pub(super) fn entry(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }

    pub(super) fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn is_current(&self, job: JobRef) -> bool {
        self.entry(job.slot)
            .is_some_and(|entry| entry.revision == job.revision)
    }

    fn stored(
        &mut self,
        now: Now,
        name: Arc<str>,
        revision: i64,
        (partition, due): (u64, Option<Timestamp>),
        effects: &mut Vec<Effect>,
    ) {
        let due = due.unwrap_or(now.wall);
        let slot = match self.names.get(&name) {
            Some(slot) => {
                let slot = *slot;
                if self.entry(slot).is_some_and(|it| it.revision >= revision) {
                    return;
                }
                self.take_out(now, slot, effects);
                slot
            }
            None => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.entries.push(None);
                    self.entries.len() as u32 - 1
                });
                self.names.insert(name.clone(), slot);
                slot
            }
        };
        self.entries[slot as usize] = Some(Entry {
            name,
            revision,
            partition,
            due,
            state: State::Foreign,
        });
        if self.owns(partition) {
            self.arm(slot, due);
        }
    }

    fn removed(&mut self, now: Now, name: &str, revision: i64, effects: &mut Vec<Effect>) {
        let Some(slot) = self.names.get(name).copied() else {
            return;
        };
        if self.entry(slot).is_some_and(|it| it.revision < revision) {
            self.take_out(now, slot, effects);
            self.remove(slot);
        }
    }

    /// Removes a job that is in no list.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(entry) = self.entries[slot as usize].take() {
            self.names.remove(&entry.name);
            self.free.push(slot);
        }
    }

    /// Waits for the date.
    pub(super) fn arm(&mut self, slot: u32, at: Timestamp) {
        if let Some(entry) = self.entry_mut(slot) {
            (entry.due, entry.state) = (at, State::Due);
            self.due.insert((at, slot));
        }
    }

    pub(super) fn retry_at(&mut self, slot: u32, at: Duration) {
        if let Some(entry) = self.entry_mut(slot) {
            entry.state = State::Retry(at);
            self.retries.insert((at, slot));
        }
    }

    /// It is to be read, and delivered if it is due. The gates are passed already.
    pub(super) fn queue(&mut self, now: Now, slot: u32, seniority: u64, passed: Vec<GateKey>) {
        let since = now.steady;
        if let Some(entry) = self.entry_mut(slot) {
            entry.state = State::Queued { since, seniority };
            self.queue.insert(seniority, slot);
            self.busy.insert((since, slot));
            if !passed.is_empty() {
                self.passed.insert(slot, passed);
            }
        }
    }

    /// The same for jobs that waited, and keep their seniority.
    pub(super) fn queue_all(&mut self, now: Now, slots: Vec<u32>) {
        for slot in slots {
            let waited = match self.entry(slot).map(|entry| &entry.state) {
                Some(State::Waiting(wait)) => wait.seniority,
                _ => continue,
            };
            self.queue(now, slot, waited, Vec::new());
        }
    }

    pub(super) fn new_seniority(&mut self) -> u64 {
        self.last_seniority += 1;
        self.last_seniority
    }

    /// Takes a job out of all lists; what is under way for it is without effect.
    pub(super) fn take_out(&mut self, now: Now, slot: u32, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entry_mut(slot) else {
            return;
        };
        let due = entry.due;
        match std::mem::replace(&mut entry.state, State::Foreign) {
            State::Foreign | State::Flying => {}
            State::Due => {
                self.due.remove(&(due, slot));
            }
            State::Retry(at) => {
                self.retries.remove(&(at, slot));
            }
            State::Queued { since, seniority } => {
                self.queue.remove(&seniority);
                self.busy.remove(&(since, slot));
                let passed = self.passed.remove(&slot).unwrap_or_default();
                self.release(now, &passed, effects);
            }
            State::Reading { since, .. } => {
                self.busy.remove(&(since, slot));
            }
            State::Waiting(wait) => self.forget(*wait, effects),
            State::Committing(committing) => {
                self.busy.remove(&(committing.since, slot));
                if let Some(at) = committing.retry {
                    self.retries.remove(&(at, slot));
                }
            }
        }
    }

    fn forget(&mut self, wait: Wait, effects: &mut Vec<Effect>) {
        match wait.place {
            Place::Group(target) => self.pool.forget(&target, wait.seniority),
            Place::Gate(key, _) => {
                self.gates.forget(&key, wait.seniority);
                self.count_pending(&key, effects);
            }
        }
    }

    /// What is due by now.
    fn pass_time(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((at, slot)) = self.due.first().copied()
            && at <= now.wall
        {
            self.due.pop_first();
            let seniority = self.new_seniority();
            self.queue(now, slot, seniority, Vec::new());
        }
        while let Some((at, slot)) = self.retries.first().copied()
            && at <= now.steady
        {
            self.retries.pop_first();
            self.resume(now, slot, effects);
        }
    }

    fn resume(&mut self, now: Now, slot: u32, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entry_mut(slot) else {
            return;
        };
        let revision = entry.revision;
        if let State::Committing(committing) = &mut entry.state {
            committing.retry = None;
            let commit = committing.commit.clone();
            let job = JobRef { slot, revision };
            return effects.push(Effect::Commit { job, commit });
        }
        let seniority = self.new_seniority();
        self.queue(now, slot, seniority, Vec::new());
    }

    fn start_reads(&mut self, effects: &mut Vec<Effect>) {
        while self.reads.len() < self.settings.workers.max(1)
            && let Some((seniority, slot)) = self.queue.pop_first()
        {
            let passed = self.passed.remove(&slot).unwrap_or_default();
            let Some(entry) = self.entry_mut(slot) else {
                continue;
            };
            if let State::Queued { since, .. } = entry.state {
                entry.state = State::Reading { since, seniority };
            }
            let job = JobRef {
                slot,
                revision: entry.revision,
            };
            let name = entry.name.clone();
            match self.reads.entry(job) {
                // It was given up and is wanted again: the read under way is for
                // this version as well, and what it has passed stays passed.
                Slot::Occupied(mut reading) => reading.get_mut().extend(passed),
                Slot::Vacant(free) => {
                    free.insert(passed);
                    effects.push(Effect::Read { job, name });
                }
            }
        }
    }

    pub(super) fn read_again(&mut self, now: Now, slot: u32, broken: bool) {
        let pause = if broken { BROKEN_PAUSE } else { PAUSE };
        self.retry_at(slot, now.steady + pause);
    }

    /// Writes what follows from an attempt.
    pub(super) fn commit(
        &mut self,
        now: Now,
        job: JobRef,
        (commit, step): (super::Commit, Step),
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.entry_mut(job.slot) else {
            return;
        };
        entry.state = State::Committing(Box::new(Committing {
            since: now.steady,
            commit: commit.clone(),
            step,
            pause: PAUSE,
            retry: None,
        }));
        self.busy.insert((now.steady, job.slot));
        effects.push(Effect::Commit { job, commit });
    }

    fn committed(&mut self, now: Now, job: JobRef, result: Committed) {
        let Some(entry) = self.entry_mut(job.slot) else {
            return;
        };
        let due = entry.due;
        if entry.revision != job.revision {
            return;
        }
        let State::Committing(committing) = &mut entry.state else {
            return;
        };
        if committing.retry.is_some() {
            return;
        }
        if result == Committed::Failed {
            let at = now.steady + committing.pause;
            committing.pause = (committing.pause * 2).min(LONGEST_PAUSE);
            committing.retry = Some(at);
            self.retries.insert((at, job.slot));
            return;
        }
        let since = committing.since;
        let step = committing.step.clone();
        let partition = entry.partition;
        self.busy.remove(&(since, job.slot));
        if result == Committed::Done && step == Step::Finished {
            return self.remove(job.slot);
        }
        if !self.owns(partition) {
            if let Some(entry) = self.entry_mut(job.slot) {
                entry.state = State::Foreign;
            }
            return;
        }
        match (result, step) {
            (Committed::Done, Step::Next(_, at)) => self.arm(job.slot, at),
            (Committed::Done, Step::Retry(_, pause)) => {
                self.retry_at(job.slot, now.steady + pause);
            }
            _ => self.arm(job.slot, due.min(now.wall)),
        }
    }

    pub(super) fn owns(&self, partition: u64) -> bool {
        owner(&self.members, partition).is_none_or(|index| index == self.own)
    }

    fn set_members(
        &mut self,
        now: Now,
        members: Vec<Member>,
        own: usize,
        effects: &mut Vec<Effect>,
    ) {
        let before = std::mem::replace(&mut self.members, members);
        self.own = own;
        let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let index = u32::try_from(own).unwrap_or(u32::MAX);
        let keys = self.gates.set_members(count, index);
        for slot in 0..self.entries.len() as u32 {
            let Some(entry) = self.entry(slot) else {
                continue;
            };
            let (due, partition) = (entry.due, entry.partition);
            match (self.owns(partition), &entry.state) {
                (true, State::Foreign) => {
                    let former = owner(&before, partition).map(|index| before[index].id);
                    let lives = |id| self.members.iter().any(|member| member.id == id);
                    let at = match former.is_some_and(lives) {
                        true => due.max(now.wall + HANDOVER),
                        false => due,
                    };
                    self.arm(slot, at);
                }
                // What is under way is finished here.
                (false, State::Flying | State::Committing(_) | State::Foreign) | (true, _) => {}
                (false, _) => self.take_out(now, slot, effects),
            }
        }
        self.wake(now, &keys, effects);
    }
}

/// Which of the members has the jobs of a partition: by rendezvous hashing, so
/// that a member that goes moves its share alone.
fn owner(members: &[Member], partition: u64) -> Option<usize> {
    let all_idle = members.iter().all(|member| member.idle);
    let may = |member: &Member| all_idle || !member.idle;
    let all = members.iter().enumerate().filter(|(_, it)| may(it));
    let scores = all.map(|(index, member)| (mix(partition ^ member.id), index));
    scores.max().map(|(_, index)| index)
}

/// A bijection that spreads numbers (the finaliser of splitmix64).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
