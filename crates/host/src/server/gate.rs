//! The places of a listener: which connections have one, and which are closed to
//! make room.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use super::slots::{Admission, Id, Slots, State};

/// Log lines about connections are counted over this time.
const REPORT: Duration = Duration::from_secs(10);
/// Lines in that time about connections that were refused or closed.
const REFUSALS: u32 = 10;

/// The places of one listener.
pub struct Gate {
    pub(super) name: &'static str,
    pub(super) limits: Limits,
    places: Mutex<Places>,
}

struct Places {
    slots: Slots,
    evictions: HashMap<Id, CancellationToken>,
    crowded: Report,
    refusals: Report,
}

/// Log lines of one kind, few at a time.
#[derive(Default)]
struct Report {
    since: Option<Instant>,
    lines: u32,
    /// Counted since the last line.
    unlogged: u64,
}

impl Report {
    /// Counts one more. Returns how many a line now stands for; nothing if there
    /// were `lines` lately.
    fn count(&mut self, lines: u32) -> Option<u64> {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= REPORT) {
            self.since = Some(now);
            self.lines = 0;
        }
        self.unlogged += 1;
        if self.lines == lines {
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unlogged))
    }
}

/// A connection's place, given back when dropped.
pub struct Place {
    pub(super) gate: Arc<Gate>,
    pub(super) id: Id,
    pub(super) evicted: CancellationToken,
}

impl Place {
    /// The first byte has come.
    pub fn heard(&self) {
        self.gate.set(self.id, State::Waiting);
    }

    /// The first request has come: from now on the connection stays.
    pub fn served(&self) {
        self.gate.set(self.id, State::Busy);
    }

    /// Waits until the connection has to make room for others.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Gate {
    /// Of a listener; `name` is for the log.
    pub fn new(name: &'static str, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            name,
            limits,
            places: Mutex::new(Places {
                slots: Slots::new(limits.caps()),
                evictions: HashMap::new(),
                crowded: Report::default(),
                refusals: Report::default(),
            }),
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; none while every other one is being served.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let mut places = self.places();
        match places.slots.admit(peer.ip().into(), Instant::now()) {
            Admission::Admitted { id, evicted } => {
                if let Some(evicted) = evicted {
                    places.close(evicted);
                    self.crowded(&mut places, peer);
                }
                let evicted = CancellationToken::new();
                places.evictions.insert(id, evicted.clone());
                Some(Place {
                    gate: self.clone(),
                    id,
                    evicted,
                })
            }
            Admission::Refused => {
                self.crowded(&mut places, peer);
                None
            }
        }
    }

    fn crowded(&self, places: &mut Places, peer: SocketAddr) {
        if let Some(closed) = places.crowded.count(1) {
            tracing::warn!(target: "dapr.host", "{}: too many connections, {closed} closed; the latest came from {}: look for clients that connect and send nothing", self.name, peer.ip());
        }
    }

    /// Logs why a connection was refused or closed.
    pub(super) fn refused(&self, peer: SocketAddr, why: &str) {
        let Some(number) = self.places().refusals.count(REFUSALS) else {
            return;
        };
        let name = self.name;
        match number {
            1 => {
                tracing::warn!(target: "dapr.host", "{name}: a connection from {peer} was refused: {why}");
            }
            _ => {
                tracing::warn!(target: "dapr.host", "{name}: {number} connections were refused; the latest, from {peer}: {why}");
            }
        }
    }

    pub(super) fn set(&self, id: Id, state: State) {
        self.places().slots.set(id, state, Instant::now());
    }

    /// Room for more of a body of connection `id`; others may have to make it.
    pub(super) fn hold(&self, id: Id, bytes: usize) -> bool {
        let mut places = self.places();
        let (evicted, held) = places.slots.hold(id, bytes);
        for id in evicted {
            places.close(id);
        }
        held
    }

    pub(super) fn release(&self, id: Id, bytes: usize) {
        self.places().slots.release(id, bytes);
    }
}

impl Places {
    fn close(&mut self, id: Id) {
        if let Some(evicted) = self.evictions.remove(&id) {
            evicted.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.gate.places();
        places.slots.remove(self.id);
        places.evictions.remove(&self.id);
    }
}
