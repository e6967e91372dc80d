//! The trigger engine: jobs, when they are due, and their way to a sidecar and
//! back.

mod deliver;
mod found;
mod jobs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outrider_proto::Any;
use outrider_proto::scheduler::v1::JobMetadata;
use outrider_proto::stored::v1::Counter;

use crate::gates::{GateKey, Gates, Limit};
use crate::pool::{Pool, Target};
use crate::timing::{Progress, Step, Timing};

pub type StreamId = u64;

/// Two clocks: dates, which may be set, and the time since some start, which only
/// grows. Due times are dates; pauses are not.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub wall: Timestamp,
    pub steady: Duration,
}

/// One version of a job: where the engine has it, and the revision at which the
/// store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobRef {
    pub slot: u32,
    pub revision: i64,
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Job,
    Actor,
}

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many jobs are read from the store at once.
    pub workers: usize,
}

/// What a sidecar can take.
#[derive(Debug, Clone, Default)]
pub struct Subscription {
    pub namespace: String,
    pub targets: Vec<Target>,
    /// Where other sidecars reach it: reminders of its actors are for it alone.
    pub address: Option<Arc<str>>,
    pub limits: Vec<Limit>,
}

/// What the store knows of a job that may be due.
#[derive(Debug, Clone)]
pub struct Found {
    pub timing: Timing,
    pub progress: Progress,
    /// 0 if there is no counter.
    pub counter_revision: i64,
    pub target: Target,
    pub delivery: Box<Delivery>,
}

/// What a sidecar gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The name within its target.
    pub name: String,
    pub metadata: JobMetadata,
    pub payload: Option<Any>,
}

#[derive(Debug)]
pub enum Read {
    Found(Box<Found>),
    /// It is not there, or not in this version.
    Gone,
    /// It cannot be understood.
    Broken(String),
    /// The store did not answer.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Failed,
}

/// What became of a [`Commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    Done,
    /// Job or counter were not those that were read; nothing was written.
    Changed,
    Failed,
}

#[derive(Debug)]
pub enum Event {
    /// A job was written, or is found in the store.
    Stored {
        name: Arc<str>,
        revision: i64,
        partition: u64,
        /// Not before this; none if it is over.
        due: Option<Timestamp>,
    },
    /// A job was deleted by the change with this revision.
    Removed {
        name: Arc<str>,
        revision: i64,
    },
    Read {
        job: JobRef,
        read: Read,
    },
    Committed {
        job: JobRef,
        result: Committed,
    },
    Opened {
        stream: StreamId,
        subscription: Subscription,
    },
    Closed {
        stream: StreamId,
    },
    /// A job has left the queue of its stream.
    Sent {
        stream: StreamId,
        id: u64,
    },
    Answered {
        stream: StreamId,
        id: u64,
        answer: Answer,
    },
    /// The members of the cluster, and the place of this one among them.
    Members {
        members: Vec<Member>,
        own: usize,
    },
    Tick,
}

/// One scheduler of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// No sidecar is connected to it. Jobs are for the others, as long as there
    /// are others.
    pub idle: bool,
}

/// What is stored when an attempt is over: guarded by the revisions of job and
/// counter.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    pub name: Arc<str>,
    pub job_revision: i64,
    /// 0 if there must be none.
    pub counter_revision: i64,
    /// None if the job is over: it is deleted with its counter.
    pub counter: Option<Counter>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Counted {
    Triggered(Kind),
    Failed(Kind),
    Undelivered(Kind),
    /// From the stream to the answer.
    Latency(Kind, Duration),
    InFlight(Arc<str>, u32),
    Pending(Arc<str>, usize),
    Throttled(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Read {
        job: JobRef,
        name: Arc<str>,
    },
    Commit {
        job: JobRef,
        commit: Commit,
    },
    Send {
        stream: StreamId,
        id: u64,
        delivery: Box<Delivery>,
    },
    Count(Counted),
    /// An answer to something that was not asked, or not any more.
    UnknownAnswer {
        stream: StreamId,
        id: u64,
    },
    /// A job that cannot be understood.
    Broken {
        name: Arc<str>,
        why: String,
    },
}

/// A job that is due, that could be delivered, and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    pub name: Arc<str>,
    pub since: Duration,
}

/// All jobs of this member.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// In the order of all, and which is this one.
    members: Vec<Member>,
    own: usize,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    names: HashMap<Arc<str>, u32>,
    /// By date.
    due: BTreeSet<(Timestamp, u32)>,
    /// What is tried again, by the steady clock.
    retries: BTreeSet<(Duration, u32)>,
    /// Due and to be read, by seniority.
    queue: BTreeMap<u64, u32>,
    /// Under way to the store, with the gates that the job has passed.
    reads: HashMap<JobRef, Vec<GateKey>>,
    /// Gates that queued jobs have passed.
    passed: HashMap<u32, Vec<GateKey>>,
    /// What should not take long, by since when it does.
    busy: BTreeSet<(Duration, u32)>,
    pool: Pool,
    gates: Gates,
    last_seniority: u64,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    revision: i64,
    partition: u64,
    /// It is due at this time or later.
    due: Timestamp,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Another member's.
    Foreign,
    Due,
    /// Looked at again at this time of the steady clock.
    Retry(Duration),
    Queued {
        since: Duration,
        seniority: u64,
    },
    Reading {
        since: Duration,
        seniority: u64,
    },
    Waiting(Box<Wait>),
    Flying,
    Committing(Box<Committing>),
}

#[derive(Debug)]
struct Wait {
    seniority: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// For a stream, or for room on one.
    Group(Target),
    /// At the first gate, with all that are to be passed.
    Gate(GateKey, Vec<GateKey>),
}

#[derive(Debug)]
struct Committing {
    since: Duration,
    commit: Commit,
    step: Step,
    /// Pause after the next failure.
    pause: Duration,
    retry: Option<Duration>,
}
