//! What has become of all calls, reminders and jobs.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::record::Records;
use super::truth::Health;
use super::{ACTORS, Work};
use crate::load::{Attempt, Attempts, Outcome as Answer, between};
use crate::report::{Row, seconds};

/// Nothing that is due waits longer after the healing.
const GOAL: Duration = Duration::from_secs(5);
/// A page has so long to say that something is wrong.
const NOTICED: Duration = Duration::from_secs(2);
/// Due so long after they were made.
const REMINDER: Duration = Duration::from_secs(2);
const JOB: Duration = Duration::from_secs(1);

/// What a counter says in the end.
#[derive(Debug, Default)]
pub struct Counter {
    pub count: u64,
    /// How often each reminder came.
    pub reminders: HashMap<String, u64>,
}

pub struct Times {
    pub harmed: SystemTime,
    pub healed: SystemTime,
    /// When the load ended.
    pub stopped: SystemTime,
    /// Until then pages may say what they like.
    pub excused: SystemTime,
}

#[derive(Debug, Default)]
pub struct Outcome {
    calls: usize,
    failed: usize,
    hung: usize,
    /// Additions with an answer that are not counted.
    lost: u64,
    /// Counted without an answer with success.
    extra: u64,
    /// Reminders and jobs that were acknowledged.
    due: usize,
    never: usize,
    early: usize,
    doubled: usize,
    twice: usize,
    /// The longest time without progress after the healing, and before it.
    stall: Duration,
    during: Duration,
    lied: Duration,
}

/// From, to.
type Stall = (SystemTime, SystemTime);

impl Outcome {
    pub fn new(
        work: &Work,
        records: &Records,
        counters: &[Counter],
        times: &Times,
        health: &Health,
    ) -> Outcome {
        let mut outcome = Outcome {
            twice: records.active_twice(),
            ..Outcome::default()
        };
        for attempts in [&work.additions, &work.reminders, &work.jobs] {
            outcome.count(&attempts.all());
        }
        let additions = work.additions.all();
        let mut stalls = Vec::new();
        for actor in 0..ACTORS {
            let own = additions
                .iter()
                .filter(|it| it.id % ACTORS == actor && it.is_acknowledged());
            let ends: Vec<SystemTime> = own.map(|it| it.ended).collect();
            let counted = counters
                .get(actor as usize)
                .map_or(0, |counter| counter.count);
            outcome.lost += (ends.len() as u64).saturating_sub(counted);
            outcome.extra += counted.saturating_sub(ends.len() as u64);
            stalls.extend(gaps(ends, times));
        }
        for attempts in [&work.reminders, &work.jobs] {
            let all = attempts.all();
            let own = all.iter().filter(|it| it.is_acknowledged());
            stalls.extend(gaps(own.map(|it| it.ended).collect(), times));
        }
        let came: HashMap<&str, u64> = (counters.iter())
            .flat_map(|counter| {
                counter
                    .reminders
                    .iter()
                    .map(|(name, times)| (&**name, *times))
            })
            .collect();
        let reminded = |name: &str| came.get(name).copied().unwrap_or(0);
        stalls.extend(outcome.due(
            &work.reminders,
            "r",
            REMINDER,
            &records.reminders,
            reminded,
            times,
        ));
        let ran = |name: &str| records.jobs.get(name).map_or(0, |times| times.len() as u64);
        stalls.extend(outcome.due(&work.jobs, "j", JOB, &records.jobs, ran, times));
        let after = |(from, to): &Stall| between((*from).max(times.healed), *to);
        outcome.stall = stalls.iter().map(after).max().unwrap_or_default();
        let before =
            |(from, to): &Stall| between((*from).max(times.harmed), (*to).min(times.healed));
        outcome.during = stalls.iter().map(before).max().unwrap_or_default();
        // After the healing pages may be well before all goes on again, for as long.
        let noticed = |(from, to): &Stall| {
            let from = (*from).max(times.excused) + NOTICED;
            let after = from.max(times.healed + NOTICED);
            [(from, (*to).min(times.healed)), (after, *to)]
        };
        let unnoticed: Vec<Stall> = stalls.iter().flat_map(noticed).collect();
        outcome.lied = health.lied(&unnoticed, times.excused);
        outcome
    }

    fn count(&mut self, attempts: &[Attempt]) {
        self.calls += attempts.len();
        for attempt in attempts {
            match attempt.outcome {
                Answer::Acknowledged => {}
                Answer::Failed(_) => self.failed += 1,
                Answer::Hung => self.hung += 1,
            }
        }
    }

    /// Counts what was due, and says how long each of them waited.
    fn due(
        &mut self,
        attempts: &Attempts,
        letter: &str,
        delay: Duration,
        came: &HashMap<String, Vec<SystemTime>>,
        often: impl Fn(&str) -> u64,
        times: &Times,
    ) -> Vec<Stall> {
        let mut stalls = Vec::new();
        for attempt in attempts.all().iter().filter(|it| it.is_acknowledged()) {
            let name = format!("{letter}{}", attempt.id);
            self.due += 1;
            let first = came.get(&name).and_then(|times| times.first());
            match (first, often(&name)) {
                (None, _) | (_, 0) => self.never += 1,
                (Some(_), 1) => {}
                _ => self.doubled += 1,
            }
            self.early += usize::from(first.is_some_and(|at| *at < attempt.begun + delay));
            // What never came is counted as such.
            let to = first.copied().unwrap_or(times.stopped);
            stalls.push((attempt.ended + delay, to));
        }
        stalls
    }

    pub fn row(self) -> Row {
        let mut wrong = Vec::new();
        for (count, what) in [
            (self.lost, "additions lost"),
            (self.never as u64, "reminders or jobs lost"),
            (self.early as u64, "early"),
            (self.twice as u64, "actors active twice"),
            (self.hung as u64, "hung"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        if self.stall > GOAL {
            wrong.push(format!("stalled for {} s", seconds(self.stall)));
        }
        if self.lied > Duration::ZERO {
            wrong.push("health did not say so".to_owned());
        }
        Row {
            figures: vec![
                ("calls", self.calls.to_string()),
                ("failed", self.failed.to_string()),
                ("hung", self.hung.to_string()),
                ("lost", self.lost.to_string()),
                ("extra", self.extra.to_string()),
                ("twice", self.twice.to_string()),
                ("due", self.due.to_string()),
                ("never", self.never.to_string()),
                ("early", self.early.to_string()),
                ("doubled", self.doubled.to_string()),
                ("during s", seconds(self.during)),
                ("stall s", seconds(self.stall)),
                ("lied s", seconds(self.lied)),
            ],
            wrong,
            excuse: None,
        }
    }
}

/// Between one success and the next, until the load ended.
fn gaps(mut ends: Vec<SystemTime>, times: &Times) -> Vec<Stall> {
    ends.push(times.stopped);
    ends.sort();
    let from = ends.iter().copied();
    from.zip(ends.iter().copied().skip(1)).collect()
}
