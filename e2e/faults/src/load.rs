//! A load at a fixed rate, and what became of each request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use outrider_harness::http::Answer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Microseconds since 1970, as all records have them.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

pub fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// From one time to a later one; zero if it is earlier.
pub fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Acknowledged,
    /// Answered with an error, or the connection ended.
    Failed(String),
    /// Not answered in time.
    Hung,
}

#[derive(Debug, Clone)]
pub struct Attempt {
    pub id: u64,
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub outcome: Outcome,
}

impl Attempt {
    pub fn is_acknowledged(&self) -> bool {
        self.outcome == Outcome::Acknowledged
    }
}

#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<Mutex<Vec<Attempt>>>);

impl Attempts {
    pub fn all(&self) -> Vec<Attempt> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes a request and writes down how it went.
    pub async fn make(
        &self,
        id: u64,
        limit: Duration,
        request: impl Future<Output = Result<Answer>>,
    ) {
        let begun = SystemTime::now();
        let outcome = match tokio::time::timeout(limit, request).await {
            Err(_) => Outcome::Hung,
            Ok(Err(error)) => Outcome::Failed(format!("{error:#}")),
            Ok(Ok(answer)) if (200..300).contains(&answer.status) => Outcome::Acknowledged,
            Ok(Ok(answer)) => Outcome::Failed(format!("{}: {}", answer.status, answer.text())),
        };
        let attempt = Attempt {
            id,
            begun,
            ended: SystemTime::now(),
            outcome,
        };
        (self.0.lock().unwrap_or_else(PoisonError::into_inner)).push(attempt);
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    orders: mpsc::Sender<()>,
    running: JoinSet<()>,
}

impl Load {
    /// `send` gets numbers from 0 on, so many a second.
    pub fn start<F>(per_second: u32, mut send: impl FnMut(u64) -> F + Send + 'static) -> Load
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (orders, mut order) = mpsc::channel(1);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut under_way = JoinSet::new();
            let mut numbers = 0..;
            loop {
                tokio::select! {
                    asked = order.recv() => match asked {
                        Some(()) => under_way.abort_all(),
                        None => break,
                    },
                    _ = ticks.tick() => {
                        if let Some(number) = numbers.next() {
                            under_way.spawn(send(number));
                        }
                    }
                }
                while under_way.try_join_next().is_some() {}
            }
            while under_way.join_next().await.is_some() {}
        });
        Load { orders, running }
    }

    /// Drops the requests that are under way, as a client does that is killed.
    pub async fn vanish(&self) {
        // It runs until this is dropped.
        let _ = self.orders.send(()).await;
    }

    /// Waits for the requests that are under way.
    pub async fn stop(mut self) {
        drop(self.orders);
        while self.running.join_next().await.is_some() {}
    }
}
