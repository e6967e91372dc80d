//! From the store to a sidecar, and what it answers.

use std::collections::BTreeSet;

use super::{
    Answer, Commit, Counted, Effect, Engine, Found, JobRef, Now, Place, Read, State, Step,
    StreamId, Subscription, Wait,
};
use crate::gates::GateKey;
use crate::pool::{Choice, Flight, actor_of};

impl Engine {
    pub(super) fn read(&mut self, now: Now, job: JobRef, read: Read, effects: &mut Vec<Effect>) {
        let passed = self.reads.remove(&job).unwrap_or_default();
        let reading = match self.entry(job.slot) {
            Some(entry) if entry.revision == job.revision => match entry.state {
                State::Reading { since, seniority } => Some((since, seniority)),
                _ => None,
            },
            _ => None,
        };
        let Some((since, seniority)) = reading else {
            return self.release(now, &passed, effects);
        };
        self.busy.remove(&(since, job.slot));
        match read {
            Read::Found(found) => {
                return self.found(now, (job, seniority), *found, passed, effects);
            }
            // The change that made it go is on its way; should it be lost, the job
            // is looked at again.
            Read::Gone | Read::Failed(_) => self.read_again(now, job.slot, false),
            Read::Broken(why) => {
                if let Some(entry) = self.entry(job.slot) {
                    let name = entry.name.clone();
                    effects.push(Effect::Broken { name, why });
                }
                self.read_again(now, job.slot, true);
            }
        }
        self.release(now, &passed, effects);
    }

    fn found(
        &mut self,
        now: Now,
        (job, seniority): (JobRef, u64),
        found: Found,
        passed: Vec<GateKey>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(entry) = self.entry(job.slot)
            && !self.owns(entry.partition)
        {
            self.release(now, &passed, effects);
            if let Some(entry) = self.entry_mut(job.slot) {
                entry.state = State::Foreign;
            }
            return;
        }
        match found.timing.next(found.progress) {
            Some(at) if at <= now.wall => {
                self.deliver(now, (job, seniority, at), found, passed, effects);
            }
            Some(at) => {
                self.arm(job.slot, at);
                self.release(now, &passed, effects);
            }
            None => {
                self.release(now, &passed, effects);
                let commit = self.outcome(job, found.counter_revision, None);
                self.commit(now, job, (commit, Step::Finished), effects);
            }
        }
    }

    fn outcome(
        &self,
        job: JobRef,
        counter_revision: i64,
        counter: Option<outrider_proto::stored::v1::Counter>,
    ) -> Commit {
        let name = self.entry(job.slot).map(|entry| entry.name.clone());
        Commit {
            name: name.unwrap_or_else(|| "".into()),
            job_revision: job.revision,
            counter_revision,
            counter,
        }
    }

    fn deliver(
        &mut self,
        now: Now,
        (job, seniority, tick): (JobRef, u64, jiff::Timestamp),
        found: Found,
        mut passed: Vec<GateKey>,
        effects: &mut Vec<Effect>,
    ) {
        let target = &found.target;
        let actor = actor_of(&found.delivery.metadata);
        let stream = match self.pool.choose(target, actor) {
            Choice::Stream(stream) => stream,
            choice => {
                let mut next = None;
                if let Choice::NoRoom(address) = choice {
                    next = self.pool.crowd(target, address, (seniority, job.slot));
                } else {
                    effects.push(Effect::Count(Counted::Undelivered(target.kind)));
                    self.pool.stage(target, seniority, job.slot);
                }
                self.wait(job.slot, seniority, Place::Group(target.clone()));
                self.queue_all(now, next.into_iter().collect());
                return self.release(now, &passed, effects);
            }
        };
        if passed.is_empty() {
            let keys = self.gates_of(&found);
            if let Err(closed) = self.gates.pass(&keys) {
                effects.push(Effect::Count(Counted::Throttled(closed.key.clone())));
                return self.wait_at(job.slot, seniority, (closed, keys), effects);
            }
            passed = keys;
        }
        for key in &passed {
            let current = self.gates.in_flight(key);
            effects.push(Effect::Count(Counted::InFlight(key.key.clone(), current)));
        }
        let flight = Flight {
            job,
            kind: target.kind,
            seniority,
            unsent: found.size(),
            timing: Box::new(found.timing),
            progress: found.progress,
            tick,
            counter_revision: found.counter_revision,
            gates: passed,
            since: now.steady,
        };
        let id = self.pool.take_off(stream, flight);
        if let Some(entry) = self.entry_mut(job.slot) {
            entry.state = State::Flying;
        }
        effects.push(Effect::Send {
            stream,
            id,
            delivery: found.delivery,
        });
    }

    fn gates_of(&self, found: &Found) -> Vec<GateKey> {
        if found.target.kind != super::Kind::Actor {
            return Vec::new();
        }
        let name = found.delivery.metadata.concurrency_key.as_deref();
        self.gates
            .of(&found.target.namespace, &found.target.id, name)
    }

    fn wait(&mut self, slot: u32, seniority: u64, place: Place) {
        if let Some(entry) = self.entry_mut(slot) {
            entry.state = State::Waiting(Box::new(Wait { seniority, place }));
        }
    }

    fn wait_at(
        &mut self,
        slot: u32,
        seniority: u64,
        (closed, keys): (GateKey, Vec<GateKey>),
        effects: &mut Vec<Effect>,
    ) {
        self.gates.wait(&closed, seniority, slot);
        self.wait(slot, seniority, Place::Gate(closed.clone(), keys));
        self.count_pending(&closed, effects);
    }

    pub(super) fn count_pending(&self, key: &GateKey, effects: &mut Vec<Effect>) {
        let pending = self.gates.pending(key);
        effects.push(Effect::Count(Counted::Pending(key.key.clone(), pending)));
    }

    /// Leaves gates, for those who wait at them.
    pub(super) fn release(&mut self, now: Now, keys: &[GateKey], effects: &mut Vec<Effect>) {
        if keys.is_empty() {
            return;
        }
        self.gates.release(keys);
        for key in keys {
            let current = self.gates.in_flight(key);
            effects.push(Effect::Count(Counted::InFlight(key.key.clone(), current)));
        }
        self.wake(now, keys, effects);
    }

    /// Lets those pass that wait at these gates, the oldest first, as many as can.
    /// One that another gate stops waits there from now on.
    pub(super) fn wake(&mut self, now: Now, keys: &[GateKey], effects: &mut Vec<Effect>) {
        let mut changed = BTreeSet::new();
        while let Some((key, slot)) = self.gates.next(keys) {
            changed.insert(key);
            let waiting = match self.entry(slot).map(|entry| &entry.state) {
                Some(State::Waiting(wait)) => match &wait.place {
                    Place::Gate(_, all) => Some((wait.seniority, all.clone())),
                    Place::Group(_) => None,
                },
                _ => None,
            };
            let Some((seniority, all)) = waiting else {
                continue;
            };
            match self.gates.pass(&all) {
                Ok(()) => self.queue(now, slot, seniority, all),
                Err(closed) => self.wait_at(slot, seniority, (closed, all), effects),
            }
        }
        for key in &changed {
            self.count_pending(key, effects);
        }
    }

    pub(super) fn opened(&mut self, now: Now, stream: StreamId, subscription: Subscription) {
        let namespace = subscription.namespace.as_str().into();
        let gates = self.gates.open(&namespace, &subscription.limits);
        let woken = self
            .pool
            .open(stream, subscription.targets, subscription.address, gates);
        self.queue_all(now, woken);
    }

    pub(super) fn closed(&mut self, now: Now, stream: StreamId, effects: &mut Vec<Effect>) {
        let Some((stream, woken)) = self.pool.close(stream) else {
            return;
        };
        let without_gate = self.gates.close(&stream.gates);
        self.queue_all(now, woken);
        self.queue_all(now, without_gate);
        for key in &stream.gates {
            self.count_pending(key, effects);
        }
        let mut flights: Vec<Flight> = stream.flights.into_values().collect();
        flights.sort_by_key(|flight| flight.seniority);
        for flight in flights {
            effects.push(Effect::Count(Counted::Undelivered(flight.kind)));
            if self.is_flying(flight.job) {
                self.queue(now, flight.job.slot, flight.seniority, Vec::new());
            }
            self.release(now, &flight.gates, effects);
        }
    }

    fn is_flying(&self, job: JobRef) -> bool {
        let entry = self.entry(job.slot);
        self.is_current(job) && entry.is_some_and(|it| matches!(it.state, State::Flying))
    }

    pub(super) fn answered(
        &mut self,
        now: Now,
        (stream, id): (StreamId, u64),
        answer: Answer,
        effects: &mut Vec<Effect>,
    ) {
        let Some(flight) = self.pool.land(stream, id) else {
            return effects.push(Effect::UnknownAnswer { stream, id });
        };
        let kind = flight.kind;
        let accepted = answer == Answer::Accepted;
        effects.push(Effect::Count(match accepted {
            true => Counted::Triggered(kind),
            false => Counted::Failed(kind),
        }));
        let latency = now.steady.saturating_sub(flight.since);
        effects.push(Effect::Count(Counted::Latency(kind, latency)));
        if self.is_flying(flight.job) {
            let step = flight.timing.step(flight.progress, flight.tick, accepted);
            let counter = match &step {
                Step::Retry(progress, _) | Step::Next(progress, _) => {
                    Some(flight.timing.counter(*progress))
                }
                Step::Finished => None,
            };
            let commit = self.outcome(flight.job, flight.counter_revision, counter);
            self.commit(now, flight.job, (commit, step), effects);
        }
        self.release(now, &flight.gates, effects);
        let woken = self.pool.roomy(stream);
        self.queue_all(now, woken);
    }
}
