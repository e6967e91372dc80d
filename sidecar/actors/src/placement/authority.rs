//! Who says where actors are: the placement service, or the scheduler that leads
//! placement. It has no clock and does no I/O.

use std::time::{Duration, Instant};

use outrider_scheduler_client::placement::{Announced, Leader};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// There is none, or none so far: actors are off.
    Nobody { is_certain: bool },
    /// It will be known later.
    Awaited,
    /// The placement service.
    Service,
    /// The scheduler at this address.
    Scheduler(String),
}

/// Follows who it is. What the schedulers said last counts, also while none of
/// them can be reached: those that serve placement come back, and a sidecar that
/// asked another service meanwhile would have actors that others have too.
pub struct Choice {
    now: Authority,
    has_service: bool,
    is_reachable: bool,
    /// How long schedulers may be out of reach before anybody is known.
    wait: Duration,
    /// When the placement service is taken if no scheduler can be reached.
    deadline: Option<Instant>,
}

impl Choice {
    /// With schedulers they are asked first.
    pub fn new(now: Instant, has_service: bool, has_scheduler: bool, wait: Duration) -> Self {
        let first = match (has_service, has_scheduler) {
            (true, true) => Authority::Awaited,
            (true, false) => Authority::Service,
            // Until a scheduler says that it serves.
            (false, _) => Authority::Nobody {
                is_certain: !has_scheduler,
            },
        };
        Self {
            deadline: (first == Authority::Awaited).then_some(now + wait),
            now: first,
            has_service,
            is_reachable: false,
            wait,
        }
    }

    pub fn now(&self) -> &Authority {
        &self.now
    }

    /// When [`Self::wake`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes over what schedulers announce now.
    pub fn update(&mut self, now: Instant, said: &Announced) {
        match &said.leader {
            None => {}
            Some(Leader::At(address)) => self.now = Authority::Scheduler(address.clone()),
            Some(Leader::Absent) => {
                self.now = match self.has_service {
                    true => Authority::Service,
                    false => Authority::Nobody { is_certain: true },
                };
            }
            Some(Leader::Awaited) => {
                // The one that leads stays until another one is named.
                if let Authority::Nobody { .. } = self.now {
                    self.now = Authority::Awaited;
                }
            }
        }
        let was_reachable = std::mem::replace(&mut self.is_reachable, said.is_reachable);
        self.deadline = match self.now {
            Authority::Awaited if self.has_service && !said.is_reachable => match was_reachable {
                true => Some(now + self.wait),
                false => self.deadline,
            },
            _ => None,
        };
    }

    /// The deadline may have passed.
    pub fn wake(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.now = Authority::Service;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn said(leader: impl Into<Option<Leader>>, is_reachable: bool) -> Announced {
        Announced {
            leader: leader.into(),
            is_reachable,
        }
    }

    fn leader(address: &str) -> Leader {
        Leader::At(address.to_owned())
    }

    #[test]
    fn what_schedulers_say_decides() {
        let now = Instant::now();
        let mut choice = Choice::new(now, true, true, WAIT);
        assert_eq!(*choice.now(), Authority::Awaited);
        for (leader, expected) in [
            (Leader::Awaited, Authority::Awaited),
            (leader("a:1"), Authority::Scheduler("a:1".to_owned())),
            (Leader::Awaited, Authority::Scheduler("a:1".to_owned())),
            (leader("b:1"), Authority::Scheduler("b:1".to_owned())),
            (Leader::Absent, Authority::Service),
            (Leader::Awaited, Authority::Service),
            (leader("a:1"), Authority::Scheduler("a:1".to_owned())),
        ] {
            choice.update(now, &said(leader.clone(), true));
            assert_eq!(*choice.now(), expected, "{leader:?}");
        }
    }

    #[test]
    fn without_schedulers_it_is_the_placement_service_at_once_if_there_is_one() {
        let now = Instant::now();
        let choice = |has_service, has_scheduler| {
            let choice = Choice::new(now, has_service, has_scheduler, WAIT);
            (choice.now().clone(), choice.next_deadline())
        };
        assert_eq!(choice(true, false), (Authority::Service, None));
        let nobody = |is_certain| (Authority::Nobody { is_certain }, None);
        assert_eq!(choice(false, false), nobody(true));
        assert_eq!(choice(false, true), nobody(false));
    }

    #[test]
    fn without_a_placement_service_only_schedulers_that_serve_turn_actors_on() {
        let now = Instant::now();
        let mut choice = Choice::new(now, false, true, WAIT);
        for (leader, expected) in [
            (Leader::Absent, Authority::Nobody { is_certain: true }),
            (Leader::Awaited, Authority::Awaited),
            (leader("a:1"), Authority::Scheduler("a:1".to_owned())),
            (Leader::Absent, Authority::Nobody { is_certain: true }),
        ] {
            choice.update(now, &said(leader.clone(), true));
            assert_eq!(*choice.now(), expected, "{leader:?}");
        }
        choice.update(now, &said(Leader::Awaited, false));
        assert_eq!(choice.next_deadline(), None, "there is nothing to take");
    }

    #[test]
    fn the_placement_service_is_taken_when_no_scheduler_was_reached_in_time() {
        let now = Instant::now();
        let mut choice = Choice::new(now, true, true, WAIT);
        choice.wake(now + WAIT / 2);
        assert_eq!(*choice.now(), Authority::Awaited);
        // One that can be reached and has no leader is waited for.
        choice.update(now, &said(Leader::Awaited, true));
        assert_eq!(choice.next_deadline(), None);
        choice.wake(now + 2 * WAIT);
        assert_eq!(*choice.now(), Authority::Awaited);
        // The wait begins anew with its end, and does not with each further try.
        choice.update(now + 2 * WAIT, &said(Leader::Awaited, false));
        choice.update(now + 5 * WAIT / 2, &said(Leader::Awaited, false));
        assert_eq!(choice.next_deadline(), Some(now + 3 * WAIT));
        choice.wake(now + 3 * WAIT);
        assert_eq!(*choice.now(), Authority::Service);
    }

    fn leaders() -> impl Strategy<Value = Option<Leader>> {
        prop_oneof![
            Just(None),
            Just(Some(Leader::Awaited)),
            Just(Some(Leader::Absent)),
            "[ab]:1".prop_map(|address| Some(Leader::At(address))),
        ]
    }

    proptest! {
        #[test]
        fn a_sidecar_of_schedulers_goes_to_the_placement_service_only_if_they_say_so(
            steps in prop::collection::vec((leaders(), any::<bool>(), 0u64..100), 1..40)
        ) {
            let mut now = Instant::now();
            let mut choice = Choice::new(now, true, true, WAIT);
            for (leader, is_reachable, seconds) in steps {
                let before = choice.now().clone();
                choice.update(now, &said(leader.clone(), is_reachable));
                let updated = choice.now().clone();
                now += Duration::from_secs(seconds);
                choice.wake(now);
                let after = choice.now().clone();
                match leader {
                    Some(Leader::At(address)) => {
                        prop_assert_eq!(&after, &Authority::Scheduler(address));
                    }
                    Some(Leader::Absent) => prop_assert_eq!(&after, &Authority::Service),
                    _ => {
                        prop_assert_eq!(&updated, &before);
                        // Time alone moves only who has nobody.
                        prop_assert!(after == updated || updated == Authority::Awaited && !is_reachable);
                    }
                }
            }
        }
    }
}
