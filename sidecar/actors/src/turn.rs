//! A call on its way through the table.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

use crate::error::Error;
use crate::table::Refusal;

/// How a call stands: the table writes it, the task of the call waits for it.
/// Effects of the table may arrive in another order than it has decided: the
/// highest one counts.
#[derive(Debug, Default)]
pub struct Ticket {
    stands: AtomicU8,
    changed: Notify,
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const MOVED: u8 = 2;
const TOO_DEEP: u8 = 3;
const LATE: u8 = 4;
const CANCELED: u8 = 5;

impl Ticket {
    pub fn run(&self) {
        self.raise(RUNNING);
    }

    pub fn cancel(&self) {
        self.raise(CANCELED);
    }

    pub fn refuse(&self, why: Refusal) {
        self.raise(match why {
            Refusal::Moved => MOVED,
            Refusal::TooDeep => TOO_DEEP,
            Refusal::Late => LATE,
        });
    }

    fn raise(&self, stands: u8) {
        self.stands.fetch_max(stands, Ordering::AcqRel);
        // One task waits; what it has not waited for yet is kept for it.
        self.changed.notify_one();
    }

    /// Waits for the turn.
    pub async fn turn(&self) -> Result<(), Error> {
        loop {
            match self.stands.load(Ordering::Acquire) {
                WAITING => self.changed.notified().await,
                RUNNING => return Ok(()),
                TOO_DEEP => return Err(Error::TooDeep),
                LATE => return Err(Error::Late("others have kept the actor busy")),
                // A call that is cut off before it has begun can go on elsewhere.
                _ => return Err(Error::Moved),
            }
        }
    }

    /// Waits until the call has to end.
    pub async fn canceled(&self) {
        while self.stands.load(Ordering::Acquire) != CANCELED {
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_is_not_lost_to_a_turn_that_is_told_late() {
        let ticket = Ticket::default();
        ticket.cancel();
        ticket.run();
        assert!(matches!(ticket.turn().await, Err(Error::Moved)));
        let ticket = Ticket::default();
        ticket.run();
        ticket.turn().await.unwrap();
        ticket.cancel();
        ticket.run();
        ticket.canceled().await;
    }
}
