//! Actors, reminders and jobs: two hosts, a client, a store, placement and scheduler, each
//! with an address of its own, and something that befalls them alone or two at a time.

mod cluster;
mod outcome;
mod record;
mod truth;

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::load::{Attempts, Load};
use crate::report::Row;
use crate::side::Side;
use crate::{DOWN, wait};
use cluster::Cluster;
use truth::Truth;

/// A call takes at most so long. The policy gives an actor 5 seconds, with retries.
const LIMIT: Duration = Duration::from_secs(15);
/// Until all has gone on after the fault, and until the last reminder and job has come.
const RECOVERY: Duration = Duration::from_secs(45);

pub const ACTORS: u64 = 20;
/// Per second, over all actors.
const ADDITIONS: u32 = 40;
const REMINDERS: u32 = 5;
const JOBS: u32 = 5;
/// Calls that are made before the fault and after it.
const BEFORE: usize = 100;
const AFTER: usize = 240;

/// On a slow way each piece waits so long.
const SLOW: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    Placement,
    Scheduler,
    Store,
    /// That of the first host.
    Sidecar,
    /// That of the first host.
    Application,
    /// The first host's sidecar and application.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Kill,
    Freeze(Duration),
    /// No packet comes through.
    Cut(Duration),
    /// All that sidecars and it say to each other takes longer.
    Slow(Duration),
    /// No byte is left on the disk.
    Fill(Duration),
}

impl Kind {
    /// How long it lasts.
    fn length(self) -> Duration {
        match self {
            Kind::Kill => DOWN,
            Kind::Freeze(length) | Kind::Cut(length) | Kind::Slow(length) | Kind::Fill(length) => {
                length
            }
        }
    }
}

pub type Fault = (Kind, Target);

#[derive(Debug, Clone)]
pub struct Scenario {
    /// At the same time.
    faults: Vec<Fault>,
}

/// All of them that this machine can do: with namespaces or without.
pub fn scenarios(long: bool, namespaces: bool) -> Vec<Scenario> {
    use Kind::{Cut, Fill, Freeze, Kill, Slow};
    use Target::{Application, Host, Placement, Scheduler, Sidecar, Store};
    const TEN: Duration = Duration::from_secs(10);
    const SIXTY: Duration = Duration::from_secs(60);
    let all = [Placement, Scheduler, Store, Sidecar, Application];
    let mut faults: Vec<Vec<Fault>> = Vec::new();
    faults.extend(all.map(|target| vec![(Kill, target)]));
    faults.extend(all.map(|target| vec![(Freeze(TEN), target)]));
    if long {
        faults.extend(all.map(|target| vec![(Freeze(SIXTY), target)]));
    }
    faults.extend([Placement, Scheduler, Store, Host].map(|target| vec![(Cut(TEN), target)]));
    faults.extend([Placement, Scheduler, Store].map(|target| vec![(Slow(TEN), target)]));
    faults.push(vec![(Fill(TEN), Scheduler)]);
    faults.extend([
        vec![(Kill, Placement), (Kill, Scheduler)],
        vec![(Kill, Sidecar), (Kill, Scheduler)],
        vec![(Freeze(TEN), Store), (Kill, Placement)],
        vec![(Freeze(TEN), Sidecar), (Kill, Placement)],
        vec![(Cut(TEN), Host), (Kill, Scheduler)],
    ]);
    let possible = |faults: &Vec<Fault>| {
        let needs_root = |(kind, _): &Fault| matches!(kind, Cut(_) | Fill(_));
        namespaces || !faults.iter().any(needs_root)
    };
    faults.retain(possible);
    faults
        .into_iter()
        .map(|faults| Scenario { faults })
        .collect()
}

fn name_of((kind, target): &Fault) -> String {
    let target = match target {
        Target::Placement => "placement",
        Target::Scheduler => "scheduler",
        Target::Store => "store",
        Target::Sidecar => "sidecar",
        Target::Application => "application",
        Target::Host => "host",
    };
    match kind {
        Kind::Kill => format!("kill {target}"),
        Kind::Freeze(length) => format!("freeze {target} {} s", length.as_secs()),
        Kind::Cut(length) => format!("cut off {target} {} s", length.as_secs()),
        Kind::Slow(length) => format!("slow {target} {} s", length.as_secs()),
        Kind::Fill(length) => format!("full disk of {target} {} s", length.as_secs()),
    }
}

impl Scenario {
    pub fn name(&self) -> String {
        let names: Vec<String> = self.faults.iter().map(name_of).collect();
        format!("actors: {}", names.join(" and "))
    }

    pub fn is_short(&self) -> bool {
        self.faults == [(Kind::Kill, Target::Scheduler)]
    }

    /// What is in a job: much where the disk is full, to need more of it.
    fn size_of_jobs(&self) -> usize {
        let is_full = |(kind, _): &Fault| matches!(kind, Kind::Fill(_));
        if self.faults.iter().any(is_full) {
            256 * 1024
        } else {
            1
        }
    }

    fn has(&self, target: Target) -> bool {
        self.faults.iter().any(|(_, it)| *it == target)
    }

    pub async fn run(&self, side: &Side, folder: &Path) -> Result<Row> {
        let mut cluster = Cluster::start(side, folder, &self.faults).await?;
        let work = Work::start(&cluster, self.size_of_jobs());
        let begun = SystemTime::now();
        let going = wait::until(RECOVERY, || async { work.goes_on(&cluster, begun, BEFORE) });
        ensure!(
            going.await,
            "the load does not get going: {:?}",
            work.additions.all().last()
        );
        let truth = Truth::watch(cluster.pages());
        let harmed = SystemTime::now();
        let healed = cluster.harm(&self.faults).await?;
        wait::until(RECOVERY, || async { work.goes_on(&cluster, healed, AFTER) }).await;
        let work = work.stop().await;
        let stopped = SystemTime::now();
        wait::until(RECOVERY, || async { work.have_come(&cluster) }).await;
        let health = truth.stop().await;
        let counters = cluster.counters().await?;
        // Without the store or its application no actor can do anything, and that is no
        // reason to restart anything else.
        let control_plane = self.has(Target::Placement) || self.has(Target::Scheduler);
        let excused = if control_plane { harmed } else { healed };
        let times = outcome::Times {
            harmed,
            healed,
            stopped,
            excused,
        };
        let outcome = outcome::Outcome::new(&work, &cluster.records(), &counters, &times, &health);
        Ok(outcome.row())
    }
}

/// Additions, reminders and jobs, each numbered from 0.
pub struct Work {
    pub additions: Attempts,
    pub reminders: Attempts,
    pub jobs: Attempts,
    loads: Vec<Load>,
}

impl Work {
    fn start(cluster: &Cluster, size_of_jobs: usize) -> Work {
        let mut work = Work {
            additions: Attempts::default(),
            reminders: Attempts::default(),
            jobs: Attempts::default(),
            loads: Vec::new(),
        };
        let method = |number: u64, method: &str| {
            let actor = number % ACTORS;
            format!("/v1.0/actors/counter/{actor}/method/{method}")
        };
        let (client, attempts) = (cluster.client(), work.additions.clone());
        work.loads.push(Load::start(ADDITIONS, move |number| {
            let (client, attempts) = (client.clone(), attempts.clone());
            async move {
                let (path, body) = (method(number, "add"), json!(1));
                attempts.make(number, LIMIT, client.put(&path, &body)).await;
            }
        }));
        let (client, attempts) = (cluster.client(), work.reminders.clone());
        work.loads.push(Load::start(REMINDERS, move |number| {
            let (client, attempts) = (client.clone(), attempts.clone());
            async move {
                let (path, name) = (method(number, "later"), json!(format!("r{number}")));
                attempts.make(number, LIMIT, client.put(&path, &name)).await;
            }
        }));
        let (client, attempts) = (cluster.client(), work.jobs.clone());
        work.loads.push(Load::start(JOBS, move |number| {
            let (client, attempts) = (client.clone(), attempts.clone());
            let job = json!({"dueTime": "1s", "data": "x".repeat(size_of_jobs)});
            async move {
                let path = format!("/v1.0/jobs/j{number}");
                attempts.make(number, LIMIT, client.post(&path, &job)).await;
            }
        }));
        work
    }

    /// Whether so many calls were made since then, each actor has answered one of them, and
    /// a reminder and a job have come that were made since then.
    fn goes_on(&self, cluster: &Cluster, since: SystemTime, calls: usize) -> bool {
        let later = |attempts: &Attempts| {
            let all = attempts.all().into_iter();
            all.filter(|it| it.is_acknowledged() && it.begun >= since)
                .collect::<Vec<_>>()
        };
        let additions = later(&self.additions);
        let is_there = |actor| additions.iter().any(|it| it.id % ACTORS == actor);
        if additions.len() < calls || !(0..ACTORS).all(is_there) {
            return false;
        }
        let records = cluster.records();
        let reminded = |number: u64| records.reminders.contains_key(&format!("r{number}"));
        let ran = |number: u64| records.jobs.contains_key(&format!("j{number}"));
        later(&self.reminders).iter().any(|it| reminded(it.id))
            && later(&self.jobs).iter().any(|it| ran(it.id))
    }

    /// Whether each reminder and job that was acknowledged has come.
    fn have_come(&self, cluster: &Cluster) -> bool {
        let records = cluster.records();
        let acknowledged = |attempts: &Attempts| {
            let all = attempts.all().into_iter();
            all.filter(|it| it.is_acknowledged())
                .map(|it| it.id)
                .collect::<Vec<_>>()
        };
        let reminded = |number: u64| records.reminders.contains_key(&format!("r{number}"));
        let ran = |number: u64| records.jobs.contains_key(&format!("j{number}"));
        acknowledged(&self.reminders).into_iter().all(reminded)
            && acknowledged(&self.jobs).into_iter().all(ran)
    }

    async fn stop(mut self) -> Work {
        for load in self.loads.drain(..) {
            load.stop().await;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_and_without_namespaces_some_are_left_out() {
        let all = scenarios(true, true);
        let names: BTreeSet<_> = all.iter().map(Scenario::name).collect();
        assert_eq!(names.len(), all.len());
        let without = scenarios(true, false);
        assert!(without.len() < all.len());
        assert_eq!(
            without
                .iter()
                .filter(|scenario| scenario.is_short())
                .count(),
            1
        );
    }
}
