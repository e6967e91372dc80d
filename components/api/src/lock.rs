//! Lock stores: <https://docs.dapr.io/developing-applications/building-blocks/distributed-lock/>.

use std::time::Duration;

use async_trait::async_trait;

use crate::Error;

/// Asks for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryLockRequest {
    /// What is locked.
    pub resource: String,
    /// Whose it becomes.
    pub owner: String,
    /// When it is released at the latest.
    pub expiry: Duration,
}

/// Gives a lock back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlockRequest {
    /// What is locked.
    pub resource: String,
    /// Whose it is.
    pub owner: String,
}

/// What became of a request to release a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlocked {
    /// It is released.
    Released,
    /// Nobody has it.
    Absent,
    /// It belongs to another owner, who keeps it.
    OfAnother,
}

/// A connected lock store.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes a lock that nobody has. Returns at once, whether it did.
    async fn try_lock(&self, request: &TryLockRequest) -> Result<bool, Error>;

    /// Releases a lock of its owner.
    async fn unlock(&self, request: &UnlockRequest) -> Result<Unlocked, Error>;

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
