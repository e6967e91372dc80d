//! Which scheduler serves placement, and when that is announced: not while a
//! placement service is there that sidecars may use. All of it
//! is known anew after a start; nothing is stored.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

/// So many rounds in which no placement service is seen make it absent.
const SIGHTLESS: u32 = 3;
/// Between two rounds while no placement service is there.
const PAUSE: Duration = Duration::from_secs(10);
/// And while one is: sidecars wait for its end.
const PRESENT_PAUSE: Duration = Duration::from_secs(3);
/// The same while an absence is being confirmed.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// Addresses that all sidecars together may report; further ones are not looked at.
const MOST_ADDRESSES: usize = 64;
/// Of one sidecar.
const MOST_OF_ONE: usize = 8;
/// In bytes.
const LONGEST_ADDRESS: usize = 260;

/// A scheduler, as all others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub address: String,
    /// Whether it may serve placement.
    pub is_capable: bool,
}

/// A scheduler, as it is announced to sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub address: String,
    pub is_leader: bool,
    pub is_capable: bool,
}

/// What one scheduler knows, and what follows.
#[derive(Debug, Default)]
pub struct Authority {
    members: Vec<Member>,
    /// This scheduler among them.
    own: Option<usize>,
    presence: Presence,
    /// Where sidecars are configured to find placement services.
    reported: BTreeMap<String, Reported>,
    /// Connected sidecars that can follow a scheduler, and that cannot.
    followers: usize,
    others: usize,
    /// Streams of placement.
    streams: usize,
    /// A sidecar has used what was announced: the announcement stays when
    /// sidecars go.
    is_latched: bool,
}

/// Whether a placement service is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Unknown { sightless: u32 },
    Present { sightless: u32 },
    Absent,
}

impl Default for Presence {
    fn default() -> Self {
        Presence::Unknown { sightless: 0 }
    }
}

#[derive(Debug, Default)]
struct Reported {
    streams: usize,
    is_probed: bool,
}

/// A connected sidecar. Give it back when it is gone.
#[derive(Debug)]
#[must_use]
pub struct Sidecar {
    can_follow: bool,
    addresses: Vec<String>,
}

impl Authority {
    /// All schedulers. None if this one does not run.
    pub fn set_members(&mut self, members: Vec<Member>, own: &str) {
        self.own = members.iter().position(|it| it.address == own);
        self.members = members;
        self.latch();
    }

    /// `addresses` are where the sidecar is configured to find placement services.
    pub fn connect(&mut self, can_follow: bool, addresses: &[String]) -> Sidecar {
        let mut known = Vec::new();
        for address in addresses.iter().take(MOST_OF_ONE) {
            let fits = !address.is_empty() && address.len() <= LONGEST_ADDRESS;
            let has_room = self.reported.len() < MOST_ADDRESSES;
            if fits && (has_room || self.reported.contains_key(address)) {
                self.reported.entry(address.clone()).or_default().streams += 1;
                known.push(address.clone());
            }
        }
        match can_follow {
            true => self.followers += 1,
            false => self.others += 1,
        }
        self.latch();
        Sidecar {
            can_follow,
            addresses: known,
        }
    }

    pub fn disconnect(&mut self, sidecar: &Sidecar) {
        let count = match sidecar.can_follow {
            true => &mut self.followers,
            false => &mut self.others,
        };
        *count = count.saturating_sub(1);
        for address in &sidecar.addresses {
            if let Some(reported) = self.reported.get_mut(address) {
                reported.streams -= 1;
                if reported.streams == 0 {
                    self.reported.remove(address);
                }
            }
        }
    }

    /// How many streams of placement are open.
    pub fn set_streams(&mut self, streams: usize) {
        self.streams = streams;
        self.latch();
    }

    /// Where a placement service may be.
    pub fn addresses(&self) -> Vec<String> {
        self.reported.keys().cloned().collect()
    }

    /// The result of one round: whether a placement service was seen anywhere, and
    /// the addresses that were looked at.
    pub fn detected(&mut self, is_seen: bool, probed: &[String]) {
        for address in probed {
            if let Some(reported) = self.reported.get_mut(address) {
                reported.is_probed = true;
            }
        }
        self.presence = match (is_seen, self.presence) {
            (true, _) => Presence::Present { sightless: 0 },
            (false, Presence::Absent) => Presence::Absent,
            (false, Presence::Unknown { sightless } | Presence::Present { sightless })
                if sightless + 1 >= SIGHTLESS =>
            {
                Presence::Absent
            }
            (false, Presence::Unknown { sightless }) => Presence::Unknown {
                sightless: sightless + 1,
            },
            (false, Presence::Present { sightless }) => Presence::Present {
                sightless: sightless + 1,
            },
        };
        if is_seen {
            self.is_latched = false;
        }
        self.latch();
    }

    /// Until the next round.
    pub fn pause(&self) -> Duration {
        match self.presence {
            Presence::Absent => PAUSE,
            Presence::Present { sightless: 0 } => PRESENT_PAUSE,
            Presence::Unknown { .. } | Presence::Present { .. } => SHORT_PAUSE,
        }
    }

    /// Whether an address was reported that no round has looked at yet.
    pub fn has_unprobed(&self) -> bool {
        self.reported.values().any(|it| !it.is_probed)
    }

    /// Whether a placement service is there that sidecars are to use.
    pub fn is_service_present(&self) -> bool {
        matches!(self.presence, Presence::Present { .. })
    }

    /// Whether this scheduler serves placement to those who ask.
    pub fn serves(&self) -> bool {
        let candidate = self.candidate().map(|it| &it.address);
        self.presence == Presence::Absent
            && self
                .own()
                .is_some_and(|own| Some(&own.address) == candidate)
    }

    /// How many connected sidecars cannot follow a scheduler.
    pub fn incapable(&self) -> usize {
        self.others
    }

    /// Whether sidecars are left without placement by what is announced.
    pub fn leaves_out(&self) -> bool {
        self.others > 0 && self.leader().is_some()
    }

    /// What is announced to sidecars.
    pub fn announced(&self) -> Vec<Announced> {
        let leader = self.leader().map(|it| &it.address);
        let is_masked = self.is_service_present();
        let announced = |member: &Member| Announced {
            address: member.address.clone(),
            is_leader: Some(&member.address) == leader,
            is_capable: member.is_capable && !is_masked,
        };
        self.members.iter().map(announced).collect()
    }

    fn own(&self) -> Option<&Member> {
        self.members.get(self.own?)
    }

    /// Every scheduler finds the same one.
    fn candidate(&self) -> Option<&Member> {
        let capable = self.members.iter().filter(|it| it.is_capable);
        capable.min_by(|a, b| a.address.as_bytes().cmp(b.address.as_bytes()))
    }

    /// The one that is announced.
    fn leader(&self) -> Option<&Member> {
        let is_wanted = self.is_latched || self.followers + self.streams > 0;
        let is_asked_first = self.is_latched || !self.has_unprobed();
        let may_announce = self.own().is_some_and(|own| own.is_capable)
            && self.presence == Presence::Absent
            && is_wanted
            && is_asked_first;
        may_announce.then(|| self.candidate())?
    }

    fn latch(&mut self) {
        self.is_latched |= self.streams > 0 && self.leader().is_some();
    }
}
