//! A task that hears of changes over one connection to a server, for all
//! subscriptions of a store, and connects anew when the connection breaks.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::{Error, Kind};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a new subscription waits until the server has confirmed it.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

/// What the task has to change at the server, of channels `C`.
#[derive(Debug)]
pub enum Order<C> {
    /// Listen to this too; answered when the server has confirmed it, and dropped
    /// where the connection breaks before.
    Add(C, oneshot::Sender<()>),
    /// Listen to this no longer.
    Remove(C),
}

/// Gives orders to the task. Cloning shares it.
#[derive(Debug)]
pub struct Orders<C>(mpsc::UnboundedSender<Order<C>>);

impl<C> Clone for Orders<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> Orders<C> {
    /// Listens to channels. Returns whether the server has confirmed it in time;
    /// if not, it is listened to once the server answers.
    pub async fn add(&self, channels: C) -> Result<bool, Error> {
        let (done, confirmed) = oneshot::channel();
        let closed = |_| Error::new(Kind::Precondition, "the configuration store is closed");
        self.0.send(Order::Add(channels, done)).map_err(closed)?;
        let confirmed = tokio::time::timeout(CONFIRMED_WITHIN, confirmed).await;
        Ok(matches!(confirmed, Ok(Ok(()))))
    }

    /// Listens to channels no longer.
    pub fn remove(&self, channels: C) {
        // Nobody listens when the task has ended.
        let _ = self.0.send(Order::Remove(channels));
    }
}

/// Owns the task, which is there from the first subscription on.
#[derive(Debug)]
pub struct Listener<C>(Mutex<Option<(Orders<C>, JoinSet<()>)>>);

impl<C> Default for Listener<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Listener<C> {
    /// The way to the task; `run` is the task where there is none yet.
    pub fn orders<F>(&self, run: impl FnOnce(mpsc::UnboundedReceiver<Order<C>>) -> F) -> Orders<C>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut task = self.task();
        let (orders, _) = task.get_or_insert_with(|| {
            let (orders, received) = mpsc::unbounded_channel();
            let mut running = JoinSet::new();
            running.spawn(run(received));
            (Orders(orders), running)
        });
        orders.clone()
    }

    /// Ends the task. No other one is begun.
    pub fn close(&self) {
        if let Some((_, running)) = self.task().as_mut() {
            running.abort_all();
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<(Orders<C>, JoinSet<()>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that are made one after the other.
#[derive(Debug)]
pub struct Attempts {
    pause: Duration,
    is_first: bool,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            pause: FIRST_PAUSE,
            is_first: true,
        }
    }
}

impl Attempts {
    /// Whether no connection before has ever been good: nothing can have been
    /// missed.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Waits before the next one; longer each time, until one has been good.
    pub async fn pause(&mut self, was_good: bool) {
        if was_good {
            *self = Self {
                is_first: false,
                ..Self::default()
            };
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_subscription_is_confirmed_by_the_server_alone() {
        let listener = Listener::<u8>::default();
        let orders = listener.orders(|mut orders| async move {
            while let Some(order) = orders.recv().await {
                match order {
                    Order::Add(0, done) => done.send(()).unwrap(),
                    // The connection breaks.
                    Order::Add(1, done) => drop(done),
                    // The server does not answer.
                    Order::Add(_, done) => std::mem::forget(done),
                    Order::Remove(_) => return,
                }
            }
        });
        assert!(orders.add(0).await.unwrap());
        assert!(!orders.add(1).await.unwrap());
        assert!(!orders.add(2).await.unwrap());
        listener.close();
        assert!(!orders.add(0).await.unwrap_or_default());
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_a_connection_was_good() {
        let mut attempts = Attempts::default();
        let mut took = Vec::new();
        for was_good in [false, false, true, false] {
            let began = tokio::time::Instant::now();
            attempts.pause(was_good).await;
            took.push(began.elapsed().as_millis());
        }
        assert_eq!(took, [100, 200, 100, 200]);
        assert!(!attempts.is_first());
    }
}
