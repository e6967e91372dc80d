//! A call on its way through the table.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

use crate::table::Refusal;

/// How a call stands: the table writes it, the task of the call waits for it.
#[derive(Debug, Default)]
pub struct Ticket {
    stands: AtomicU8,
    changed: Notify,
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const CANCELED: u8 = 2;
const MOVED: u8 = 3;
const TOO_DEEP: u8 = 4;
const LATE: u8 = 5;

impl Ticket {
    pub fn run(&self) {
        self.set(RUNNING);
    }

    pub fn cancel(&self) {
        self.set(CANCELED);
    }

    pub fn refuse(&self, why: Refusal) {
        self.set(match why {
            Refusal::Moved => MOVED,
            Refusal::TooDeep => TOO_DEEP,
            Refusal::Late => LATE,
        });
    }

    fn set(&self, stands: u8) {
        self.stands.store(stands, Ordering::Release);
        // One task waits; what it has not waited for yet is kept for it.
        self.changed.notify_one();
    }

    /// Waits for the turn.
    pub async fn turn(&self) -> Result<(), Refusal> {
        loop {
            match self.stands.load(Ordering::Acquire) {
                WAITING => self.changed.notified().await,
                MOVED => return Err(Refusal::Moved),
                TOO_DEEP => return Err(Refusal::TooDeep),
                LATE => return Err(Refusal::Late),
                _ => return Ok(()),
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
