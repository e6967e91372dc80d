//! What the applications have written down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::load;

/// A turn of an actor whose state was saved.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Which host it was on.
    pub host: usize,
    pub begun: u64,
    pub ended: u64,
}

#[derive(Debug, Default)]
pub struct Records {
    /// By actor.
    pub turns: HashMap<u64, Vec<Turn>>,
    /// When each reminder came, by name.
    pub reminders: HashMap<String, Vec<SystemTime>>,
    /// When each job came, by name.
    pub jobs: HashMap<String, Vec<SystemTime>>,
}

/// When each job came, while they come.
pub type Jobs = Arc<Mutex<HashMap<String, Vec<SystemTime>>>>;

impl Records {
    /// Of the logs of the hosts' applications.
    pub fn new(logs: &[String], jobs: &Jobs) -> Records {
        let mut records = Records {
            jobs: jobs.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Records::default()
        };
        for (host, log) in logs.iter().enumerate() {
            for line in log.lines() {
                records.read(host, line);
            }
        }
        records
    }

    /// A line that is something else says nothing.
    fn read(&mut self, host: usize, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (what, of) = (words.next()?, words.next()?);
        let mut number = || words.next()?.parse::<u64>().ok();
        match what {
            "turn" => {
                let (begun, ended) = (number()?, number()?);
                let turn = Turn { host, begun, ended };
                self.turns.entry(of.parse().ok()?).or_default().push(turn);
            }
            "reminded" => {
                let times = self.reminders.entry(of.to_owned()).or_default();
                times.push(load::time(number()?));
            }
            _ => {}
        }
        Some(())
    }

    /// Actors that had two turns at the same time on two hosts, both with effect.
    pub fn active_twice(&self) -> usize {
        let twice = |turns: &&Vec<Turn>| {
            turns.iter().enumerate().any(|(index, one)| {
                let rest = turns[index + 1..].iter();
                let mut others = rest.filter(|other| other.host != one.host);
                others.any(|other| other.begun < one.ended && one.begun < other.ended)
            })
        };
        self.turns.values().filter(twice).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_active_twice_where_turns_on_two_hosts_overlap() {
        let log = |lines: &str| lines.to_owned();
        let jobs = Jobs::default();
        let apart = [
            log("turn 1 10 20\nturn 1 15 30"),
            log("turn 1 30 40\nturn 2 10 20"),
        ];
        assert_eq!(Records::new(&apart, &jobs).active_twice(), 0);
        let both = [log("counter listens\nturn 1 10 31"), log("turn 1 30 40")];
        assert_eq!(Records::new(&both, &jobs).active_twice(), 1);
    }
}
