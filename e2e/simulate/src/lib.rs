//! Whole clusters in one thread and on one virtual clock: the engines of
//! placement, of the scheduler and of actors, with nodes that are killed and
//! frozen, paths that are blocked and dates that jump. Every choice comes from a
//! seed, so that a run that fails is run again by its number.

pub mod actors;
mod cluster;
pub mod faults;
pub mod jobs;
mod network;
mod queue;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Something that must not be, in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Since the start of the run.
    pub at: Duration,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:.3}s: {}", self.at.as_secs_f64(), self.what)
    }
}

/// What a run has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Of the clock of the run.
    pub time: Duration,
    /// Calls, or jobs that were triggered.
    pub done: u64,
    pub failed: u64,
    /// What every event of the run adds up to: the same for the same seed.
    pub sum: u64,
}

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Sidecars with actors, and placement.
    Actors,
    /// Schedulers, their store, and sidecars that take jobs.
    Jobs,
}

impl World {
    pub const ALL: [Self; 2] = [Self::Actors, Self::Jobs];
}

impl FromStr for World {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|world| world.to_string() == text);
        found.ok_or_else(|| format!("there is no world {text}: there are actors and jobs"))
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Actors => "actors",
            Self::Jobs => "jobs",
        })
    }
}

/// Runs a world with one seed; `trace` prints what happens.
pub fn run(world: World, seed: u64, trace: bool) -> Result<Report, Violation> {
    match world {
        World::Actors => actors::run(seed, trace),
        World::Jobs => jobs::run(seed, trace),
    }
}
