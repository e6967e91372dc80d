//! A store and sidecars around an engine, and a checker of what it promises.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::SignedDuration;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_proto::scheduler::v1::{JobTargetMetadata, TargetActorReminder, TargetJob};
use outrider_proto::stored::v1::failure_policy::Policy;
use outrider_proto::stored::v1::{FailurePolicy, FailurePolicyDrop, Spec, StoredJob};
use prost::Message;

use super::*;
use crate::plan;

#[derive(Debug, Clone)]
pub enum Act {
    Put {
        name: u8,
        kind: u8,
        repeats: u32,
    },
    Delete(u8),
    Open(u8, bool),
    Close(u8),
    /// One of the effects that wait.
    Perform(usize),
    Answer(usize, bool),
    /// Milliseconds.
    Wait(u64),
    StoreFails(bool),
    /// How many there are, which of them this is, and which are idle.
    Members(u8, u8, u8),
}

struct Row {
    revision: i64,
    job: Vec<u8>,
    counter: Option<(Vec<u8>, i64)>,
    repeats: u32,
    /// Answers since it was put.
    answered: u32,
}

pub struct World {
    pub engine: Engine,
    pub now: Now,
    revision: i64,
    rows: BTreeMap<String, Row>,
    pending: Vec<Effect>,
    open: HashSet<StreamId>,
    /// Delivered and not answered: stream and id, with name and revision.
    flying: Vec<((StreamId, u64), String, i64)>,
    revisions: HashMap<String, i64>,
    store_fails: bool,
    pub sent: Vec<String>,
    pub counted: Vec<Counted>,
    /// How often the store was asked for a job.
    pub reads: usize,
}

const ACTORS: &str = "t";

impl World {
    pub fn new() -> Self {
        Self {
            engine: Engine::new(Settings { workers: 3 }),
            now: Now {
                wall: Timestamp::from_second(1_800_000_000).unwrap(),
                steady: Duration::ZERO,
            },
            revision: 0,
            rows: BTreeMap::new(),
            pending: Vec::new(),
            open: HashSet::new(),
            flying: Vec::new(),
            revisions: HashMap::new(),
            store_fails: false,
            sent: Vec::new(),
            counted: Vec::new(),
            reads: 0,
        }
    }

    pub fn act(&mut self, act: Act) {
        match act {
            Act::Put {
                name,
                kind,
                repeats,
            } => self.put_random(name, kind, repeats),
            Act::Delete(name) => self.delete(&full_name(name)),
            Act::Open(stream, limited) => self.open(u64::from(stream), limited.then_some(1)),
            Act::Close(stream) => self.close(u64::from(stream)),
            Act::Perform(which) => {
                if !self.pending.is_empty() {
                    let effect = self.pending.remove(which % self.pending.len());
                    self.perform(effect);
                }
            }
            Act::Answer(which, accepted) => {
                if !self.flying.is_empty() {
                    let at = which % self.flying.len();
                    self.answer(at, accepted);
                }
            }
            Act::Wait(milliseconds) => self.wait(milliseconds),
            Act::StoreFails(fails) => self.store_fails = fails,
            Act::Members(count, own, idle) => {
                let member = |it: u64| Member {
                    id: it * 77 + 5,
                    idle: idle >> it & 1 == 1,
                };
                let members = (0..u64::from(count)).map(member).collect();
                let own = usize::from(own);
                self.event(Event::Members { members, own });
            }
        }
    }

    fn put_random(&mut self, name: u8, kind: u8, repeats: u32) {
        let mut spec = Spec {
            schedule: Some("@every 700ms".to_owned()),
            repeats: Some(repeats),
            ..Spec::default()
        };
        match kind {
            0 => (spec.schedule, spec.repeats) = (None, None),
            1 => {}
            2 => spec.due_time = Some("-2s".to_owned()),
            _ => spec.due_time = Some("300ms".to_owned()),
        }
        if kind == 0 {
            spec.due_time = Some("1s".to_owned());
        }
        spec.failure_policy = Some(FailurePolicy {
            policy: Some(Policy::Drop(FailurePolicyDrop {})),
        });
        let repeats = spec.repeats.unwrap_or(1);
        self.put(&full_name(name), metadata(name), spec, repeats);
    }

    pub fn put(&mut self, name: &str, metadata: JobMetadata, mut spec: Spec, repeats: u32) {
        spec.metadata = Some(Any {
            type_url: String::new(),
            value: metadata.encode_to_vec(),
        });
        self.revision += 1;
        let partition = self.revision as u64;
        let job = plan(spec, partition, self.now.wall).unwrap();
        self.store(name, job, repeats);
    }

    fn store(&mut self, name: &str, job: StoredJob, repeats: u32) {
        let job = job.encode_to_vec();
        let (partition, due) = Found::schedule(&job, None).unwrap();
        let revision = self.revision;
        let row = Row {
            revision,
            job,
            counter: None,
            repeats,
            answered: 0,
        };
        self.rows.insert(name.to_owned(), row);
        self.revisions.insert(name.to_owned(), revision);
        let name = name.into();
        self.event(Event::Stored {
            name,
            revision,
            partition,
            due,
        });
    }

    pub fn delete(&mut self, name: &str) {
        self.rows.remove(name);
        self.revisions.remove(name);
        self.revision += 1;
        let (name, revision) = (name.into(), self.revision);
        self.event(Event::Removed { name, revision });
    }

    pub fn open(&mut self, stream: StreamId, limit: Option<u32>) {
        let limits = limit.map(|most| Limit {
            key: ACTORS.to_owned(),
            most,
        });
        self.open_with(stream, limits.into_iter().collect());
    }

    pub fn open_with(&mut self, stream: StreamId, limits: Vec<Limit>) {
        if !self.open.insert(stream) {
            return;
        }
        let target = |kind, id: &str| Target {
            kind,
            namespace: "ns".into(),
            id: id.into(),
        };
        let subscription = Subscription {
            namespace: "ns".to_owned(),
            targets: vec![target(Kind::Job, "app"), target(Kind::Actor, ACTORS)],
            // Some say where they are, and some do not.
            address: (!stream.is_multiple_of(3)).then(|| format!("sidecar-{stream}:1").into()),
            limits,
        };
        self.event(Event::Opened {
            stream,
            subscription,
        });
    }

    pub fn close(&mut self, stream: StreamId) {
        if self.open.remove(&stream) {
            self.flying.retain(|((of, _), _, _)| *of != stream);
            self.event(Event::Closed { stream });
        }
    }

    pub fn answer(&mut self, at: usize, accepted: bool) {
        let ((stream, id), name, revision) = self.flying.remove(at);
        if let Some(row) = self.rows.get_mut(&name)
            && row.revision == revision
        {
            row.answered += 1;
            assert!(
                row.answered <= row.repeats,
                "{name} has more than its repeats"
            );
        }
        self.event(Event::Sent { stream, id });
        let answer = if accepted {
            Answer::Accepted
        } else {
            Answer::Failed
        };
        self.event(Event::Answered { stream, id, answer });
    }

    pub fn wait(&mut self, milliseconds: u64) {
        self.now.steady += Duration::from_millis(milliseconds);
        self.now.wall += SignedDuration::from_millis(milliseconds as i64);
        self.event(Event::Tick);
    }

    fn event(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.handle(self.now, event, &mut effects);
        for effect in effects {
            // Streams keep the order; the store does not.
            match effect {
                Effect::Send {
                    stream,
                    id,
                    delivery,
                } => self.send(stream, id, *delivery),
                Effect::Count(counted) => self.counted.push(counted),
                Effect::UnknownAnswer { .. } => panic!("all answers are known"),
                Effect::Broken { name, why } => panic!("{name}: {why}"),
                effect => self.pending.push(effect),
            }
        }
    }

    fn send(&mut self, stream: StreamId, id: u64, delivery: Delivery) {
        assert!(self.open.contains(&stream), "nobody is there");
        let prefix = crate::key::prefix(&delivery.metadata).unwrap();
        let name = prefix + &delivery.name;
        let row = self
            .rows
            .get(&name)
            .expect("what is deleted is not delivered");
        let counter = row.counter.as_ref().map(|(bytes, _)| bytes.as_slice());
        let (_, due) = Found::schedule(&row.job, counter).unwrap();
        assert!(
            due.expect("it is not over") <= self.now.wall,
            "{name} is early"
        );
        let same = |(_, other, revision): &((StreamId, u64), String, i64)| {
            *other == name && *revision == row.revision
        };
        assert!(!self.flying.iter().any(same), "{name} is under way twice");
        self.flying.push(((stream, id), name.clone(), row.revision));
        self.sent.push(name);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Read { job, name } => {
                self.reads += 1;
                let read = match self.rows.get(&*name) {
                    _ if self.store_fails => Read::Failed("no".to_owned()),
                    Some(row) if row.revision == job.revision => {
                        let counter = row.counter.as_ref();
                        let counter = counter.map(|(bytes, at)| (bytes.as_slice(), *at));
                        Read::Found(Box::new(Found::decode(&name, &row.job, counter).unwrap()))
                    }
                    _ => Read::Gone,
                };
                self.event(Event::Read { job, read });
            }
            Effect::Commit { job, commit } => self.commit(job, commit),
            other => panic!("{other:?} does not wait"),
        }
    }

    fn commit(&mut self, job: JobRef, commit: Commit) {
        if self.store_fails {
            let result = Committed::Failed;
            return self.event(Event::Committed { job, result });
        }
        let row = self.rows.get_mut(&*commit.name);
        let row = row.filter(|row| row.revision == commit.job_revision);
        let counter = |row: &Row| row.counter.as_ref().map_or(0, |(_, at)| *at);
        let Some(row) = row.filter(|row| counter(row) == commit.counter_revision) else {
            let result = Committed::Changed;
            return self.event(Event::Committed { job, result });
        };
        self.revision += 1;
        match commit.counter {
            Some(counter) => row.counter = Some((counter.encode_to_vec(), self.revision)),
            None => {
                let (name, revision) = (commit.name.clone(), self.revision);
                assert_eq!(row.answered, row.repeats, "{name} ends too early");
                self.rows.remove(&*commit.name);
                self.revisions.remove(&*commit.name);
                self.event(Event::Removed { name, revision });
            }
        }
        let result = Committed::Done;
        self.event(Event::Committed { job, result });
    }

    /// Everything works from now on: all jobs must come to their end.
    pub fn settle(&mut self) {
        self.store_fails = false;
        let alone = Member { id: 1, idle: true };
        let (members, own) = (vec![alone], 0);
        self.event(Event::Members { members, own });
        self.open(99, None);
        for _ in 0..2000 {
            while let Some(effect) = self.pending.pop() {
                self.perform(effect);
            }
            while !self.flying.is_empty() {
                self.answer(0, true);
            }
            if self.rows.is_empty() {
                assert_eq!(self.engine.jobs(), 0);
                assert_eq!(self.engine.staged(), 0);
                return;
            }
            if self.pending.is_empty() {
                assert!(
                    self.engine.next_deadline(self.now).is_some(),
                    "nothing leads out of this: {:?}",
                    self.engine
                );
                self.wait(50);
            }
        }
        panic!("jobs do not come to their end: {:?}", self.engine);
    }

    /// Performs all effects that wait.
    pub fn run(&mut self) {
        while !self.pending.is_empty() {
            let effect = self.pending.remove(0);
            self.perform(effect);
        }
    }

    pub fn flying(&self) -> Vec<&str> {
        self.flying
            .iter()
            .map(|(_, name, _)| name.as_str())
            .collect()
    }
}

/// Even ones are jobs of an application, odd ones reminders.
fn metadata(name: u8) -> JobMetadata {
    let target = match name % 2 {
        0 => Type::Job(TargetJob {}),
        _ => reminder_target(),
    };
    with_target(target, None)
}

fn reminder_target() -> Type {
    Type::Actor(TargetActorReminder {
        id: "1".to_owned(),
        r#type: ACTORS.to_owned(),
    })
}

fn with_target(target: Type, concurrency_key: Option<&str>) -> JobMetadata {
    JobMetadata {
        app_id: "app".to_owned(),
        namespace: "ns".to_owned(),
        target: Some(JobTargetMetadata {
            r#type: Some(target),
        }),
        concurrency_key: concurrency_key.map(str::to_owned),
    }
}

pub fn job_metadata() -> JobMetadata {
    metadata(0)
}

pub fn reminder_metadata(concurrency_key: Option<&str>) -> JobMetadata {
    with_target(reminder_target(), concurrency_key)
}

fn full_name(name: u8) -> String {
    crate::key::name(&metadata(name), &format!("j{name}")).unwrap()
}
