//! One active actor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{CallId, HaltId, Refusal};

/// An idle one has no `busy` and takes as little memory as can be: there may
/// be millions.
pub struct Entry<T> {
    /// Microseconds since the start of the table.
    pub idle_at: u64,
    /// When the actor is looked at because of it: the one place in the queue
    /// that counts. 0 without one.
    pub queued_at: u64,
    busy: Option<Box<Busy<T>>>,
    pub phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Active,
    /// Its calls end, by a deadline at the latest; then it goes.
    Draining,
    /// The application is asked to deactivate it.
    Deactivating,
}

struct Busy<T> {
    running: Vec<Running<T>>,
    /// Of the calls that have the turn.
    chain: Option<Arc<str>>,
    waiting: VecDeque<Waiting<T>>,
    halts: Vec<HaltId>,
    /// Others may have the actor already.
    is_lost: bool,
    /// Of a drain.
    deadline: Option<Instant>,
}

struct Running<T> {
    call: CallId,
    ticket: T,
    beside: bool,
    answered: bool,
}

pub struct Waiting<T> {
    pub call: CallId,
    pub ticket: T,
    pub chain: Option<Arc<str>>,
    pub deadline: Option<Instant>,
}

pub enum Entered<T> {
    Runs(T),
    Waits,
    Refused(T, Refusal),
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self {
            idle_at: 0,
            queued_at: 0,
            busy: None,
            phase: Phase::Active,
        }
    }
}

impl<T> Default for Busy<T> {
    fn default() -> Self {
        Self {
            running: Vec::new(),
            chain: None,
            waiting: VecDeque::new(),
            halts: Vec::new(),
            is_lost: false,
            deadline: None,
        }
    }
}

impl<T> Busy<T> {
    /// Whether nobody has the turn.
    fn is_free(&self) -> bool {
        self.running.iter().all(|running| running.beside)
    }

    fn is_nothing(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.halts.is_empty()
    }
}

impl<T: Clone> Entry<T> {
    pub fn enter(&mut self, waiting: Waiting<T>, beside: bool, depth: Option<usize>) -> Entered<T> {
        match self.phase {
            Phase::Draining => return Entered::Refused(waiting.ticket, Refusal::Moved),
            Phase::Deactivating => {
                self.busy.get_or_insert_default().waiting.push_back(waiting);
                return Entered::Waits;
            }
            Phase::Active => {}
        }
        let busy = self.busy.get_or_insert_default();
        let chained = depth.filter(|_| waiting.chain.is_some() && waiting.chain == busy.chain);
        if beside || (busy.is_free() && busy.waiting.is_empty()) {
            if !beside {
                busy.chain = waiting.chain.filter(|_| depth.is_some());
            }
        } else if let Some(most) = chained {
            // A refused one leaves no trace.
            if busy
                .running
                .iter()
                .filter(|running| !running.beside)
                .count()
                >= most
            {
                return Entered::Refused(waiting.ticket, Refusal::TooDeep);
            }
        } else {
            busy.waiting.push_back(waiting);
            return Entered::Waits;
        }
        let ticket = waiting.ticket.clone();
        busy.running.push(Running {
            call: waiting.call,
            ticket: waiting.ticket,
            beside,
            answered: false,
        });
        Entered::Runs(ticket)
    }

    pub fn answered(&mut self, call: CallId) {
        let running = self.busy.iter_mut().flat_map(|busy| &mut busy.running);
        for running in running.filter(|running| running.call == call) {
            running.answered = true;
        }
    }

    /// Forgets a call. One that waited has its deadline in the answer.
    pub fn leave(&mut self, call: CallId) -> Option<Option<Instant>> {
        let busy = self.busy.as_mut()?;
        if let Some(at) = busy.running.iter().position(|running| running.call == call) {
            busy.running.remove(at);
            return None;
        }
        let at = busy
            .waiting
            .iter()
            .position(|waiting| waiting.call == call)?;
        busy.waiting.remove(at).map(|waiting| waiting.deadline)
    }

    /// Takes a call that waits no longer.
    pub fn give_up(&mut self, call: CallId) -> Option<T> {
        let busy = self.busy.as_mut()?;
        let at = busy
            .waiting
            .iter()
            .position(|waiting| waiting.call == call)?;
        busy.waiting.remove(at).map(|waiting| waiting.ticket)
    }

    /// The next call, which has the turn from now on, if it is free.
    pub fn take_next(&mut self) -> Option<Waiting<T>> {
        let busy = self.busy.as_mut()?;
        if !busy.is_free() {
            return None;
        }
        busy.chain = None;
        let mut next = busy.waiting.pop_front()?;
        busy.chain = next.chain.take();
        busy.running.push(Running {
            call: next.call,
            ticket: next.ticket.clone(),
            beside: false,
            answered: false,
        });
        Some(next)
    }

    /// Whether there is nothing to do; what it took is given back then.
    pub fn is_idle(&mut self) -> bool {
        if self.busy.as_ref().is_some_and(|busy| busy.is_nothing()) {
            self.busy = None;
        }
        self.busy.is_none()
    }

    /// Whether every call has ended, or is being answered.
    pub fn is_drained(&mut self) -> bool {
        if let Some(busy) = &mut self.busy {
            busy.running.retain(|running| !running.answered);
        }
        self.busy
            .as_ref()
            .is_none_or(|busy| busy.running.is_empty())
    }

    /// The calls that have to end now.
    pub fn cut_off(&self) -> impl Iterator<Item = T> + '_ {
        let running = self.busy.iter().flat_map(|busy| &busy.running);
        let running = running.filter(|running| !running.answered);
        running.map(|running| running.ticket.clone())
    }

    pub fn has_waiting(&self) -> bool {
        self.busy
            .as_ref()
            .is_some_and(|busy| !busy.waiting.is_empty())
    }

    pub fn waiting(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.waiting.len())
    }

    pub fn take_waiting(&mut self) -> VecDeque<Waiting<T>> {
        let busy = self.busy.as_mut();
        busy.map(|busy| std::mem::take(&mut busy.waiting))
            .unwrap_or_default()
    }

    pub fn drain_until(&mut self, deadline: Instant) {
        self.phase = Phase::Draining;
        self.busy.get_or_insert_default().deadline = Some(deadline);
    }

    pub fn drain_deadline(&self) -> Option<Instant> {
        self.busy.as_ref()?.deadline
    }

    pub fn add_halt(&mut self, halt: HaltId) {
        self.busy.get_or_insert_default().halts.push(halt);
    }

    /// Whether others may have the actor already.
    pub fn is_lost(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.is_lost)
    }

    /// What runs now is not that of the owner any more.
    pub fn lose(&mut self) {
        if let Some(busy) = &mut self.busy {
            busy.is_lost = true;
        }
    }

    pub fn is_halted(&self) -> bool {
        self.busy
            .as_ref()
            .is_some_and(|busy| !busy.halts.is_empty())
    }

    /// The actor is gone: what it was lost for is over as well.
    pub fn take_halts(&mut self) -> Vec<HaltId> {
        let Some(busy) = &mut self.busy else {
            return Vec::new();
        };
        busy.is_lost = false;
        std::mem::take(&mut busy.halts)
    }
}
