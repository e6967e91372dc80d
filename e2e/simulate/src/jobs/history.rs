//! What has become of jobs, and whether that may be.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::STORE;
use crate::cluster::{self, History as _};
use crate::faults::Fault;
use crate::network::Node;
use crate::{Report, Violation};

/// A message that was on its way when a job was deleted may still come.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// How long a fault is felt: leases have to end, connections to be given up.
const AFTER_FAULT: Duration = Duration::from_secs(8);

pub struct History {
    jobs: BTreeMap<String, Job>,
    /// When something last went wrong with each node, or was mended.
    touched: Vec<Duration>,
    /// Faults that go on, by node.
    wrong_now: Vec<u32>,
    wrong: Option<String>,
    report: Report,
    sum: DefaultHasher,
}

struct Job {
    repeats: u32,
    /// How often it was sent to a sidecar.
    triggered: u32,
    gone: Option<Duration>,
}

impl History {
    pub fn new(nodes: usize) -> Self {
        Self {
            jobs: BTreeMap::new(),
            touched: vec![Duration::ZERO; nodes],
            wrong_now: vec![0; nodes],
            wrong: None,
            report: Report::default(),
            sum: DefaultHasher::new(),
        }
    }

    /// Nothing is wrong any more.
    pub fn healed(&mut self, now: Duration) {
        self.wrong_now.fill(0);
        self.touched.fill(now);
    }

    /// Whether a node has been well for a while.
    fn is_well(&self, now: Duration, node: Node) -> bool {
        self.wrong_now[node] == 0 && self.touched[node] + AFTER_FAULT < now
    }

    pub fn created(&mut self, name: &str, repeats: u32) {
        let job = Job {
            repeats,
            triggered: 0,
            gone: None,
        };
        self.jobs.insert(name.to_owned(), job);
    }

    pub fn deleted(&mut self, now: Duration, name: &str) {
        if let Some(job) = self.jobs.get_mut(name) {
            job.gone = Some(now);
        }
    }

    /// It has come to its end.
    pub fn over(&mut self, now: Duration, name: &str) {
        self.deleted(now, name);
        let short = self
            .jobs
            .get(name)
            .filter(|job| job.triggered < job.repeats);
        if let Some(Job {
            triggered, repeats, ..
        }) = short
        {
            let what = format!("{name} is over after {triggered} of {repeats} times");
            self.wrong(what);
        }
    }

    pub fn triggers(&mut self, now: Duration, name: &str, scheduler: Node, is_early: bool) {
        (now, name, scheduler).hash(&mut self.sum);
        if is_early {
            self.wrong(format!("scheduler {scheduler} triggers {name} early"));
        }
        let well = self.is_well(now, scheduler) && self.is_well(now, STORE);
        let Some(job) = self.jobs.get_mut(name) else {
            return self.wrong(format!("{name} was never made"));
        };
        job.triggered += 1;
        if well && job.gone.is_some_and(|gone| gone + ON_ITS_WAY < now) {
            self.wrong(format!("{name} fires although it is gone"));
        }
    }

    pub fn runs(&mut self, now: Duration, name: &str) {
        (now, name).hash(&mut self.sum);
        self.report.done += 1;
    }

    pub fn broken(&mut self, name: &str, why: &str) {
        self.wrong(format!("{name} cannot be read: {why}"));
    }

    pub fn waits(&mut self, name: &str) {
        self.wrong(format!(
            "{name} is due and waits, although nothing is wrong"
        ));
    }

    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Of `left`, the jobs that the store still has, there is none; and each was
    /// triggered as often as it says, at least: see [`Self::over`].
    pub fn end<'a>(
        mut self,
        at: Duration,
        mut left: impl Iterator<Item = &'a str>,
    ) -> Result<Report, Violation> {
        self.check(at)?;
        if let Some(name) = left.next() {
            let what = format!("{name} never comes to its end");
            return Err(Violation { at, what });
        }
        Ok(Report {
            time: at,
            sum: self.sum.finish(),
            ..self.report
        })
    }
}

impl cluster::History for History {
    fn check(&mut self, at: Duration) -> Result<(), Violation> {
        match self.wrong.take() {
            None => Ok(()),
            Some(what) => Err(Violation { at, what }),
        }
    }

    fn fault(&mut self, now: Duration, fault: Fault) {
        let (nodes, begins) = match fault {
            Fault::Kill(node) | Fault::Freeze(node) => ([node, node], true),
            Fault::Start(node) | Fault::Thaw(node) => ([node, node], false),
            Fault::Block(one, other) => ([one, other], true),
            Fault::Unblock(one, other) => ([one, other], false),
            Fault::Clock(node, _) => {
                self.touched[node] = now;
                return;
            }
        };
        for node in nodes {
            self.touched[node] = now;
            let wrong = &mut self.wrong_now[node];
            *wrong = match begins {
                true => *wrong + 1,
                false => wrong.saturating_sub(1),
            };
        }
    }
}
