//! The places of a listener: who is there, who has to go, and how many bytes
//! of bodies are held.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use super::slots::{Admission, Id, Slots, State};

/// At most one log line in this time about connections that had to go.
const REPORT: Duration = Duration::from_secs(10);

pub struct Gate {
    pub(super) name: &'static str,
    pub(super) limits: Limits,
    places: Mutex<Places>,
    /// Bytes of bodies that are held now.
    held: AtomicUsize,
}

struct Places {
    slots: Slots,
    evictions: HashMap<Id, CancellationToken>,
    crowded: Report,
    late: Report,
}

/// Connections that were closed since the last log line about them.
#[derive(Default)]
struct Report {
    closed: u64,
    at: Option<Instant>,
}

impl Report {
    /// Counts one. Returns how many to tell about, once in a while.
    fn count(&mut self) -> Option<u64> {
        self.closed += 1;
        let now = Instant::now();
        if self.at.is_some_and(|at| now - at < REPORT) {
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.closed))
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
                late: Report::default(),
            }),
            held: AtomicUsize::new(0),
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; none when all others are being served.
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
        if let Some(closed) = places.crowded.count() {
            tracing::warn!(target: "dapr.host", "{}: too many connections, {closed} closed; the latest came from {}: look for clients that connect and send nothing", self.name, peer.ip());
        }
    }

    /// A connection is closed since its client is late with something.
    pub(super) fn late(&self, peer: SocketAddr, what: &str) {
        let mut places = self.places();
        if let Some(closed) = places.late.count() {
            let name = self.name;
            tracing::warn!(target: "dapr.host", "{name}: a connection from {peer} was refused: {what}; {closed} in all of late");
        }
    }

    pub(super) fn set(&self, id: Id, state: State) {
        self.places().slots.set(id, state, Instant::now());
    }

    /// Room for `bytes` of a body of connection `id`; the oldest one that owes
    /// bytes makes it where there is none.
    pub(super) fn hold(&self, id: Id, bytes: usize) -> bool {
        if self.held.fetch_add(bytes, Relaxed) + bytes <= self.limits.bodies {
            return true;
        }
        let mut places = self.places();
        if let Some(evicted) = places.slots.evict_waiting(id) {
            places.close(evicted);
            return true;
        }
        drop(places);
        self.release(bytes);
        false
    }

    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
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
