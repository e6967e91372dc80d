//! One leader among the replicas of placement, by votes.
//!
//! Replicas keep nothing but who leads, in memory: there is no log to agree on.
//! A leader leads for as long as most replicas answer its heartbeats, and stops
//! before any of them would vote for another one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::before::{Before, Heard, Hosts, Stamp};

/// Between heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(150);
/// A leader that most replicas have not answered for this long stops leading.
const LEASE: Duration = Duration::from_millis(600);
/// Nobody votes for another leader within this time of a heartbeat.
const LOYALTY: Duration = Duration::from_millis(800);
/// Added at random, so that replicas do not stand for election at once.
const SPREAD: Duration = Duration::from_millis(400);

/// Terms that a replica may be ahead of another.
const FAR_AHEAD: u64 = 1 << 32;

/// What a replica asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Stands for election, or asks whether it would be elected: a replica that
    /// others cannot hear does not raise the term, and so does not depose the
    /// leader when they hear it again.
    Vote {
        term: u64,
        candidate: String,
        stands: bool,
    },
    /// Leads, with these hosts; none while it waits for some that it does not
    /// know.
    Heartbeat {
        term: u64,
        leader: String,
        /// Among those of the leader.
        number: u64,
        hosts: Option<Hosts>,
    },
    /// Leads no more: an election may begin at once.
    Resign { term: u64, leader: String },
}

/// `term` is that of the replica that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub term: u64,
    pub granted: bool,
    /// The last leader that the replica has heard: one that votes may have heard
    /// a later one than the one that it votes for.
    pub before: Option<Heard>,
}

/// To all other replicas. The answers count from the time at which it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast(pub Request);

#[derive(Debug)]
pub struct Election {
    id: String,
    /// All replicas, this one too.
    replicas: usize,
    term: u64,
    voted_for: Option<String>,
    role: Role,
    /// No vote is given before.
    loyal_until: Instant,
    /// The leader before, if another replica led; or this one, in an earlier term.
    before: Option<Before>,
    /// Of its last heartbeat.
    number: u64,
    /// What this replica says of its hosts when it leads.
    hosts: Option<Hosts>,
    /// State of a linear generator.
    random: u64,
}

#[derive(Debug)]
enum Role {
    Follower {
        leader: Option<String>,
        stands_at: Instant,
    },
    Candidate {
        /// Of the term to come, until it stands.
        term: u64,
        stands: bool,
        votes: BTreeSet<String>,
        gives_up_at: Instant,
    },
    Leader {
        /// When the last heartbeat that each replica answered was sent.
        answered: BTreeMap<String, Instant>,
        beats_at: Instant,
    },
}

impl Election {
    /// `seed` differs from replica to replica. A replica that has just begun may
    /// have voted before: it votes for nobody until that vote has no effect.
    pub fn new(id: String, replicas: usize, seed: u64, now: Instant) -> Self {
        let mut election = Self {
            id,
            replicas,
            term: 0,
            voted_for: None,
            role: Role::Follower {
                leader: None,
                stands_at: now,
            },
            loyal_until: now,
            before: None,
            number: 0,
            hosts: None,
            random: seed,
        };
        if replicas > 1 {
            election.loyal_until = now + LOYALTY;
            election.follow(now, None);
            election.before = Some(Before {
                stamp: Stamp::default(),
                hosts: None,
                heard: now,
            });
        }
        election
    }

    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    /// The one that it would take over from.
    pub fn before(&self) -> Option<Before> {
        self.before
    }

    /// Has heartbeats say from now on which hosts this leader has.
    pub fn set_hosts(&mut self, hosts: Option<Hosts>) {
        self.hosts = hosts;
    }

    /// When [`Election::wake`] is due.
    pub fn next_deadline(&self) -> Instant {
        match &self.role {
            Role::Follower { stands_at, .. } => *stands_at,
            Role::Candidate { gives_up_at, .. } => *gives_up_at,
            Role::Leader { beats_at, .. } => (*beats_at).min(self.lease_ends(*beats_at)),
        }
    }

    /// Handles what is due.
    pub fn wake(&mut self, now: Instant) -> Option<Broadcast> {
        let lease_ended = self.replicas > 1 && self.lease_ends(now) <= now;
        match &mut self.role {
            Role::Follower { stands_at, .. } if *stands_at <= now => self.ask(now),
            Role::Candidate { gives_up_at, .. } if *gives_up_at <= now => self.ask(now),
            Role::Leader { .. } if lease_ended => {
                // Should it lead again, sidecars have been elsewhere meanwhile.
                self.led(now);
                self.follow(now, None);
                None
            }
            Role::Leader { beats_at, .. } if *beats_at <= now => {
                *beats_at = now + HEARTBEAT;
                self.heartbeat()
            }
            _ => None,
        }
    }

    /// Answers another replica.
    pub fn request(&mut self, now: Instant, request: &Request) -> Answer {
        let granted = match request {
            // Terms rise one by one: no replica is that far ahead.
            Request::Vote { term, .. }
            | Request::Heartbeat { term, .. }
            | Request::Resign { term, .. }
                if *term > self.term.saturating_add(FAR_AHEAD) =>
            {
                false
            }
            Request::Vote {
                term,
                candidate,
                stands,
            } => self.vote(now, *term, candidate, *stands),
            Request::Heartbeat {
                term,
                leader,
                number,
                hosts,
            } => {
                let current = *term >= self.term;
                if current {
                    self.enter(*term);
                    self.loyal_until = now + LOYALTY;
                    let stamp = Stamp {
                        term: *term,
                        number: *number,
                    };
                    hear(
                        &mut self.before,
                        Before {
                            stamp,
                            hosts: *hosts,
                            heard: now,
                        },
                    );
                    self.follow(now, Some(leader.clone()));
                }
                current
            }
            Request::Resign { term, leader } => {
                let led =
                    matches!(&self.role, Role::Follower { leader: Some(it), .. } if it == leader);
                if led && *term == self.term {
                    self.loyal_until = now;
                    let spread = self.random_spread() / 4;
                    self.role = Role::Follower {
                        leader: None,
                        stands_at: now + spread,
                    };
                }
                led
            }
        };
        Answer {
            term: self.term,
            granted,
            before: self.before.map(|before| before.for_others(now)),
        }
    }

    /// Takes the answer of a replica to what was sent to it at `sent`.
    pub fn answer(
        &mut self,
        now: Instant,
        replica: &str,
        sent: Instant,
        request: &Request,
        answer: Answer,
    ) -> Option<Broadcast> {
        if answer.term > self.term.saturating_add(FAR_AHEAD) {
            return None;
        }
        if answer.term > self.term {
            if self.leads() {
                self.led(now);
            }
            self.enter(answer.term);
            self.follow(now, None);
            return None;
        }
        if !answer.granted {
            return None;
        }
        let majority = self.majority();
        match (&mut self.role, request) {
            (
                Role::Candidate {
                    term,
                    stands,
                    votes,
                    ..
                },
                Request::Vote {
                    term: of,
                    stands: stood,
                    ..
                },
            ) if term == of && stands == stood => {
                votes.insert(replica.to_owned());
                if let Some(before) = answer.before.and_then(|heard| Before::of(heard, now)) {
                    hear(&mut self.before, before);
                }
                if votes.len() < majority {
                    return None;
                }
                if !*stands {
                    return self.stand(now);
                }
                let answered = votes.iter().map(|it| (it.clone(), sent)).collect();
                self.lead(now, answered)
            }
            (Role::Leader { answered, .. }, Request::Heartbeat { term, .. })
                if *term == self.term =>
            {
                let last = answered.entry(replica.to_owned()).or_insert(sent);
                *last = sent.max(*last);
                None
            }
            _ => None,
        }
    }

    /// Gives up the lead, for a process that ends.
    pub fn resign(&mut self, now: Instant) -> Option<Broadcast> {
        if !self.leads() {
            return None;
        }
        let request = Request::Resign {
            term: self.term,
            leader: self.id.clone(),
        };
        self.follow(now, None);
        Some(Broadcast(request))
    }

    fn majority(&self) -> usize {
        self.replicas / 2 + 1
    }

    fn vote(&mut self, now: Instant, term: u64, candidate: &str, stands: bool) -> bool {
        if term < self.term || now < self.loyal_until || self.leads() {
            return false;
        }
        if !stands {
            return term > self.term;
        }
        self.enter(term);
        let free = self.voted_for.as_deref().is_none_or(|it| it == candidate);
        if free {
            self.voted_for = Some(candidate.to_owned());
            self.loyal_until = now + LOYALTY;
            self.follow(now, None);
        }
        free
    }

    /// Should it lead again, its hosts may have been elsewhere meanwhile.
    fn led(&mut self, now: Instant) {
        hear(
            &mut self.before,
            Before {
                stamp: Stamp {
                    term: self.term,
                    number: self.number,
                },
                hosts: self.hosts,
                heard: now,
            },
        );
    }

    fn enter(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.voted_for = None;
        }
    }

    fn follow(&mut self, now: Instant, leader: Option<String>) {
        let stands_at = now + LOYALTY + self.random_spread();
        self.role = Role::Follower { leader, stands_at };
    }

    /// Asks whether it would be elected.
    fn ask(&mut self, now: Instant) -> Option<Broadcast> {
        if self.replicas == 1 {
            self.term = self.term.saturating_add(1);
            return self.lead(now, BTreeMap::new());
        }
        self.candidate(now, self.term.saturating_add(1), false)
    }

    fn stand(&mut self, now: Instant) -> Option<Broadcast> {
        self.term = self.term.saturating_add(1);
        self.voted_for = Some(self.id.clone());
        self.candidate(now, self.term, true)
    }

    fn candidate(&mut self, now: Instant, term: u64, stands: bool) -> Option<Broadcast> {
        self.role = Role::Candidate {
            term,
            stands,
            votes: BTreeSet::from([self.id.clone()]),
            gives_up_at: now + LOYALTY / 2 + self.random_spread(),
        };
        Some(Broadcast(Request::Vote {
            term,
            candidate: self.id.clone(),
            stands,
        }))
    }

    fn lead(&mut self, now: Instant, answered: BTreeMap<String, Instant>) -> Option<Broadcast> {
        // Until it has begun, what it takes over is all that it knows.
        self.hosts = self.before.and_then(|before| before.hosts);
        self.role = Role::Leader {
            answered,
            beats_at: now + HEARTBEAT,
        };
        self.heartbeat()
    }

    fn heartbeat(&mut self) -> Option<Broadcast> {
        self.number += 1;
        (self.replicas > 1).then(|| {
            Broadcast(Request::Heartbeat {
                term: self.term,
                leader: self.id.clone(),
                number: self.number,
                hosts: self.hosts,
            })
        })
    }

    /// When most replicas will not have answered for too long. A replica that
    /// is alone needs no answers; for it that is `alone`.
    fn lease_ends(&self, alone: Instant) -> Instant {
        let Role::Leader { answered, .. } = &self.role else {
            return alone;
        };
        let others = answered.iter().filter(|(replica, _)| **replica != self.id);
        let mut times: Vec<Instant> = others.map(|(_, at)| *at).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        // This replica is one of the majority.
        let needed = self.majority() - 1;
        match needed.checked_sub(1).and_then(|last| times.get(last)) {
            Some(oldest) => *oldest + LEASE,
            None => alone,
        }
    }

    fn random_spread(&mut self) -> Duration {
        // The constants of Knuth's MMIX.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let thousandth = u32::try_from((self.random >> 33) % 1000).unwrap_or(0);
        SPREAD * thousandth / 1000
    }
}

/// Adds what a heartbeat or another replica says to what is known.
fn hear(known: &mut Option<Before>, before: Before) {
    *known = Some(known.map_or(before, |known| known.with(before)));
}

#[cfg(test)]
mod tests;
