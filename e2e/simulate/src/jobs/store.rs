//! The store that schedulers share: jobs with revisions, and leases of members.
//! It keeps all that when its process ends; only connections end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use outrider_proto::Any;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_proto::scheduler::v1::{JobMetadata, JobTargetMetadata, TargetJob};
use outrider_proto::stored::v1::Spec;
use outrider_scheduler_engine::{Commit, Committed, Found, key, plan};
use prost::Message as _;

use super::{STORE, Shared, Stored, Wire};
use crate::network::{ConnectionId, Message, Node};

/// Of leases, as the scheduler has it.
const TTL: Duration = Duration::from_secs(3);
/// A job that is due has been triggered within that.
const LATE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Row {
    pub revision: i64,
    pub job: Vec<u8>,
    pub counter: Option<(Vec<u8>, i64)>,
}

#[derive(Default)]
pub struct Store {
    rows: BTreeMap<Arc<str>, Row>,
    revision: i64,
    watching: BTreeSet<ConnectionId>,
    /// Of members, with the end of each.
    leases: BTreeMap<Node, (ConnectionId, Duration)>,
    made: u64,
    /// Whether nothing that is due may wait.
    is_well: bool,
}

impl Store {
    pub fn receive(
        &mut self,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        let Message::Data(wire) = message else {
            self.watching.remove(&connection);
            return;
        };
        match wire {
            Wire::Join => {
                let Some(node) = shared.network.other_end(connection, STORE) else {
                    return;
                };
                self.watching.insert(connection);
                let all = self.rows.iter().map(|(name, row)| stored(name, row));
                let snapshot = Wire::Snapshot(all.collect());
                shared.send(connection, STORE, snapshot);
                let over = shared.queue.now() + TTL;
                self.leases.insert(node, (connection, over));
                self.tell_members(shared);
            }
            Wire::Renew => {
                let over = shared.queue.now() + TTL;
                let mut leases = self.leases.values_mut();
                match leases.find(|(of, _)| *of == connection) {
                    Some(lease) => lease.1 = over,
                    // The member has to begin again.
                    None => shared.close(connection, STORE),
                }
            }
            Wire::Read(job, name) => {
                let row = self.rows.get(&name);
                let row = row.filter(|row| row.revision == job.revision).cloned();
                shared.send(connection, STORE, Wire::Found(job, name, row));
            }
            Wire::Commit(job, commit) => {
                let committed = self.commit(commit, shared);
                shared.send(connection, STORE, Wire::Committed(job, committed));
            }
            _ => {}
        }
    }

    /// Its process has ended.
    pub fn restart(&mut self) {
        self.watching.clear();
    }

    /// Ends the leases that are over.
    pub fn look(&mut self, shared: &mut Shared) {
        let now = shared.queue.now();
        let before = self.leases.len();
        self.leases.retain(|_, (_, over)| *over > now);
        if self.leases.len() < before {
            self.tell_members(shared);
        }
        if self.is_well
            && let Some(name) = self.waits(shared.date())
        {
            shared.history.waits(name);
        }
    }

    /// From now on nothing that is due may wait.
    pub fn expect_progress(&mut self) {
        self.is_well = true;
    }

    fn tell_members(&self, shared: &mut Shared) {
        let members: Vec<Node> = self.leases.keys().copied().collect();
        self.tell(|| Wire::Members(members.clone()), shared);
    }

    fn tell(&self, wire: impl Fn() -> Wire, shared: &mut Shared) {
        for connection in &self.watching {
            shared.send(*connection, STORE, wire());
        }
    }

    pub fn create(&mut self, kind: u8, shared: &mut Shared) {
        self.made += 1;
        let metadata = JobMetadata {
            app_id: "app".to_owned(),
            namespace: "default".to_owned(),
            target: Some(JobTargetMetadata {
                r#type: Some(Type::Job(TargetJob {})),
            }),
            concurrency_key: None,
        };
        let mut spec = Spec {
            metadata: Some(Any {
                type_url: String::new(),
                value: metadata.encode_to_vec(),
            }),
            ..Spec::default()
        };
        let repeats = match kind {
            1..=5 => {
                spec.due_time = Some(format!("{}ms", shared.random.u64(0..8000)));
                1
            }
            _ => {
                spec.schedule = Some(format!("@every {}ms", shared.random.u64(500..3000)));
                let repeats = shared.random.u32(1..5);
                spec.repeats = Some(repeats);
                repeats
            }
        };
        let name = key::name(&metadata, &format!("job-{}", self.made));
        let job = plan(spec, shared.random.u64(..), shared.date());
        let (Ok(name), Ok(job)) = (name, job) else {
            return;
        };
        let name: Arc<str> = name.into();
        self.revision += 1;
        let row = Row {
            revision: self.revision,
            job: job.encode_to_vec(),
            counter: None,
        };
        shared.history.created(&name, repeats);
        shared.trace(STORE, || format!("creates {name}"));
        let stored = stored(&name, &row);
        self.rows.insert(name, row);
        self.tell(|| Wire::Stored(stored.clone()), shared);
    }

    pub fn delete_one(&mut self, shared: &mut Shared) {
        if self.rows.is_empty() {
            return;
        }
        let at = shared.random.usize(0..self.rows.len());
        let Some(name) = self.rows.keys().nth(at).cloned() else {
            return;
        };
        self.rows.remove(&name);
        self.revision += 1;
        let (now, revision) = (shared.queue.now(), self.revision);
        shared.history.deleted(now, &name);
        shared.trace(STORE, || format!("deletes {name}"));
        self.tell(|| Wire::Removed(name.clone(), revision), shared);
    }

    fn commit(&mut self, commit: Commit, shared: &mut Shared) -> Committed {
        let row = self.rows.get_mut(&commit.name);
        let row = row.filter(|row| row.revision == commit.job_revision);
        let counter = |row: &Row| row.counter.as_ref().map_or(0, |(_, at)| *at);
        let Some(row) = row.filter(|row| counter(row) == commit.counter_revision) else {
            return Committed::Changed;
        };
        self.revision += 1;
        match commit.counter {
            Some(counter) => {
                row.counter = Some((counter.encode_to_vec(), self.revision));
            }
            None => {
                let (name, revision) = (commit.name, self.revision);
                self.rows.remove(&name);
                let now = shared.queue.now();
                shared.history.over(now, &name);
                self.tell(|| Wire::Removed(name.clone(), revision), shared);
            }
        }
        Committed::Done
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(|name| &**name)
    }

    /// A job that has been due for too long.
    fn waits(&self, date: Timestamp) -> Option<&str> {
        let waits = |row: &Row| {
            let counter = row.counter.as_ref().map(|(bytes, _)| bytes.as_slice());
            let due = Found::schedule(&row.job, counter).ok()?.1?;
            (due + LATE < date).then_some(())
        };
        let found = self.rows.iter().find(|(_, row)| waits(row).is_some());
        found.map(|(name, _)| &**name)
    }
}

fn stored(name: &Arc<str>, row: &Row) -> Stored {
    let counter = row.counter.as_ref().map(|(bytes, _)| bytes.as_slice());
    let (partition, due) = Found::schedule(&row.job, counter).unwrap_or_default();
    Stored {
        name: name.clone(),
        revision: row.revision,
        partition,
        due,
    }
}
