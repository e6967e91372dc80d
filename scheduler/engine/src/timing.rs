//! When a stored job is due, and what follows from an attempt.

use std::time::Duration;

use jiff::Timestamp;
use outrider_kit::cron::Schedule;
use outrider_proto::stored::v1::failure_policy::Policy;
use outrider_proto::stored::v1::stored_job::Begin;
use outrider_proto::stored::v1::{Counter, FailurePolicyConstant, StoredJob};

use crate::plan::{self, Invalid};

/// What decides when a job is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    schedule: Option<Schedule>,
    begin: Start,
    expiration: Option<Timestamp>,
    repeats: Option<u32>,
    retry: Retry,
    partition: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    /// The schedule counts from here.
    After(Timestamp),
    /// The first tick.
    At(Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Retry {
    Never,
    /// So many times, or for ever.
    Constant(Duration, Option<u32>),
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ticks that are over, whatever became of them.
    pub count: u32,
    /// When the last one was due.
    pub last: Option<Timestamp>,
    /// Failed attempts of the tick that is due now.
    pub attempts: u32,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The same tick again, after a pause.
    Retry(Progress, Duration),
    /// The next tick, at its time.
    Next(Progress, Timestamp),
    /// The job is over.
    Finished,
}

impl Timing {
    pub fn of(stored: &StoredJob) -> Result<Timing, Invalid> {
        let spec = stored.job.as_ref().ok_or(Invalid::Nothing)?;
        let schedule = spec.schedule.as_deref().map(plan::schedule).transpose()?;
        let begin = match stored.begin {
            Some(Begin::DueTime(due)) => Start::At(from_proto(due).ok_or(Invalid::DueTime)?),
            Some(Begin::Start(start)) if schedule.is_some() => {
                Start::After(from_proto(start).ok_or(Invalid::DueTime)?)
            }
            _ => return Err(Invalid::Nothing),
        };
        let policy = spec
            .failure_policy
            .as_ref()
            .and_then(|it| it.policy.as_ref());
        let retry = match policy {
            Some(Policy::Constant(constant)) => {
                Retry::Constant(interval(constant), constant.max_retries)
            }
            _ => Retry::Never,
        };
        Ok(Timing {
            schedule,
            begin,
            expiration: stored.expiration.and_then(from_proto),
            repeats: spec.repeats,
            retry,
            partition: stored.partition_id,
        })
    }

    /// What a counter says about this job: nothing if it is of a job that had the
    /// name before.
    pub fn progress(&self, counter: Option<&Counter>) -> Progress {
        let own = counter.filter(|it| it.job_partition_id == self.partition);
        own.map_or_else(Progress::default, |counter| Progress {
            count: counter.count,
            last: counter.last_trigger.and_then(from_proto),
            attempts: counter.attempts,
        })
    }

    pub fn counter(&self, progress: Progress) -> Counter {
        Counter {
            job_partition_id: self.partition,
            count: progress.count,
            last_trigger: progress.last.map(to_proto),
            attempts: progress.attempts,
        }
    }

    /// When the next tick is due; none if the job is over. The expiration counts
    /// for all ticks but the first at a due time.
    pub fn next(&self, progress: Progress) -> Option<Timestamp> {
        let Some(schedule) = &self.schedule else {
            return match self.begin {
                Start::At(due) if progress.count == 0 => Some(due),
                _ => None,
            };
        };
        if self.repeats.is_some_and(|total| progress.count >= total) {
            return None;
        }
        let next = match (progress.last, self.begin) {
            (None, Start::At(due)) => return Some(due),
            (None, Start::After(start)) => schedule.next(start)?,
            (Some(last), _) => schedule.next(last)?,
        };
        let expired = self.expiration.is_some_and(|end| next > end);
        (!expired).then_some(next)
    }

    /// What follows when the tick that was due at `tick` was accepted or failed.
    pub fn step(&self, mut progress: Progress, tick: Timestamp, accepted: bool) -> Step {
        if !accepted {
            progress.attempts = progress.attempts.saturating_add(1);
            if let Retry::Constant(pause, most) = self.retry
                && most.is_none_or(|most| most >= progress.attempts)
            {
                return Step::Retry(progress, pause);
            }
        }
        progress = Progress {
            count: progress.count.saturating_add(1),
            last: Some(tick),
            attempts: 0,
        };
        match self.next(progress) {
            Some(next) => Step::Next(progress, next),
            None => Step::Finished,
        }
    }
}

/// Zero if there is none.
pub(crate) fn interval(constant: &FailurePolicyConstant) -> Duration {
    let interval = constant.interval.unwrap_or_default();
    Duration::try_from(interval).unwrap_or_default()
}

pub(crate) fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    let mut seconds = time.as_second();
    let mut nanos = time.subsec_nanosecond();
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    prost_types::Timestamp { seconds, nanos }
}

pub(crate) fn from_proto(time: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use outrider_proto::stored::v1::{FailurePolicy, FailurePolicyDrop, Spec};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn timing(change: impl FnOnce(&mut Spec)) -> Timing {
        let mut spec = Spec::default();
        change(&mut spec);
        Timing::of(&plan::plan(spec, 1, at(0)).unwrap()).unwrap()
    }

    #[test]
    fn a_job_without_a_schedule_is_due_once() {
        let once = timing(|it| it.due_time = Some("5s".into()));
        assert_eq!(once.next(Progress::default()), Some(at(5)));
        let step = once.step(Progress::default(), at(5), true);
        assert_eq!(step, Step::Finished);
    }

    #[test]
    fn ticks_follow_the_scheduled_time() {
        let every = timing(|it| it.schedule = Some("@every 2s".into()));
        assert_eq!(every.next(Progress::default()), Some(at(2)));
        let Step::Next(progress, next) = every.step(Progress::default(), at(2), true) else {
            panic!("there is a next tick");
        };
        assert_eq!(
            (next, progress.count, progress.last),
            (at(4), 1, Some(at(2)))
        );
    }

    #[test]
    fn ticks_without_a_pause_come_to_their_end() {
        let three = timing(|it| {
            it.schedule = Some("@every 0s".into());
            it.repeats = Some(3);
        });
        let mut progress = Progress::default();
        for _ in 0..2 {
            assert_eq!(three.next(progress), Some(at(0)));
            let Step::Next(next, _) = three.step(progress, at(0), true) else {
                panic!("one more");
            };
            progress = next;
        }
        assert_eq!(three.step(progress, at(0), true), Step::Finished);
    }

    #[test]
    fn repeats_count_failed_ticks() {
        let two = timing(|it| {
            it.schedule = Some("@every 1s".into());
            it.repeats = Some(2);
            it.failure_policy = Some(FailurePolicy {
                policy: Some(Policy::Drop(FailurePolicyDrop {})),
            });
        });
        let Step::Next(progress, next) = two.step(Progress::default(), at(1), false) else {
            panic!("one more");
        };
        assert_eq!(two.step(progress, next, true), Step::Finished);
    }

    #[test]
    fn a_failed_tick_is_retried_as_the_policy_says() {
        let job = timing(|it| it.due_time = Some("0s".into()));
        let mut progress = Progress::default();
        for attempt in 1..=3 {
            let step = job.step(progress, at(0), false);
            let Step::Retry(next, pause) = step else {
                panic!("attempt {attempt}: {step:?}");
            };
            assert_eq!((next.attempts, pause), (attempt, Duration::from_secs(1)));
            progress = next;
        }
        assert_eq!(job.step(progress, at(0), false), Step::Finished);
    }

    #[test]
    fn only_the_first_tick_at_a_due_time_may_be_late() {
        let late = timing(|it| {
            it.schedule = Some("@every 1s".into());
            it.due_time = Some("0s".into());
            it.ttl = Some("0s".into());
        });
        assert_eq!(late.next(Progress::default()), Some(at(0)));
        let step = late.step(Progress::default(), at(0), true);
        assert_eq!(step, Step::Finished);
        let never = timing(|it| {
            it.schedule = Some("@every 1s".into());
            it.ttl = Some("0s".into());
        });
        assert_eq!(never.next(Progress::default()), None);
    }

    #[test]
    fn a_counter_of_an_earlier_job_of_the_name_does_not_count() {
        let job = timing(|it| it.due_time = Some("0s".into()));
        let counter = Counter {
            job_partition_id: 2,
            count: 9,
            ..Counter::default()
        };
        assert_eq!(job.progress(Some(&counter)), Progress::default());
        let progress = Progress {
            count: 1,
            last: Some(at(0)),
            attempts: 2,
        };
        assert_eq!(job.progress(Some(&job.counter(progress))), progress);
    }
}
