//! Limits of how many jobs of one type of actors are under way at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A limit that a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// An actor type, or an actor type with a name behind a colon.
    pub key: String,
    /// Of all members together.
    pub most: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GateKey {
    pub namespace: Arc<str>,
    pub key: Arc<str>,
}

#[derive(Debug, Default)]
struct Gate {
    /// Of all members together.
    most: u32,
    current: u32,
    /// Streams that bring the limit. Without one it is not in force, and the gate
    /// only remembers who passed.
    streams: u32,
    /// In the order of seniority.
    waiting: BTreeMap<u64, u32>,
}

#[derive(Debug)]
pub(crate) struct Gates {
    gates: HashMap<GateKey, Gate>,
    /// How many members there are, and which of them this is.
    members: u32,
    index: u32,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            gates: HashMap::new(),
            members: 1,
            index: 0,
        }
    }
}

impl Gates {
    /// The part of a limit that is this member's, at least one.
    fn share(&self, most: u32) -> u32 {
        let more = u32::from(self.index < most % self.members);
        (most / self.members + more).max(1)
    }

    fn is_open(&self, gate: &Gate) -> bool {
        gate.streams == 0 || gate.current < self.share(gate.most)
    }

    /// Returns what now may pass.
    pub fn set_members(&mut self, members: u32, index: u32) -> Vec<GateKey> {
        (self.members, self.index) = (members.max(1), index);
        self.gates.keys().cloned().collect()
    }

    /// The limits of the latest stream are in force. Returns the gates.
    pub fn open(&mut self, namespace: &Arc<str>, limits: &[Limit]) -> Vec<GateKey> {
        let mut keys: Vec<GateKey> = Vec::new();
        for limit in limits.iter().filter(|it| it.most > 0) {
            let key = GateKey {
                namespace: namespace.clone(),
                key: limit.key.as_str().into(),
            };
            let gate = self.gates.entry(key.clone()).or_default();
            gate.most = limit.most;
            if !keys.contains(&key) {
                gate.streams += 1;
                keys.push(key);
            }
        }
        keys
    }

    /// Takes the limits of a stream away. Returns the jobs that waited at gates
    /// which no stream brings any more.
    pub fn close(&mut self, keys: &[GateKey]) -> Vec<u32> {
        let mut woken = Vec::new();
        for key in keys {
            if let Some(gate) = self.gates.get_mut(key) {
                gate.streams = gate.streams.saturating_sub(1);
                if gate.streams == 0 {
                    woken.extend(std::mem::take(&mut gate.waiting).into_values());
                }
            }
            self.drop_unused(key);
        }
        woken
    }

    fn drop_unused(&mut self, key: &GateKey) {
        let unused = |gate: &Gate| gate.streams == 0 && gate.current == 0;
        if self.gates.get(key).is_some_and(unused) {
            self.gates.remove(key);
        }
    }

    /// The gates that a job of this type has to pass.
    pub fn of(&self, namespace: &Arc<str>, r#type: &Arc<str>, name: Option<&str>) -> Vec<GateKey> {
        let key = |key: Arc<str>| GateKey {
            namespace: namespace.clone(),
            key,
        };
        let named = name.map(|name| key(format!("{type}:{name}").into()));
        let all = [Some(key(r#type.clone())), named];
        let exists = |key: &GateKey| self.gates.contains_key(key);
        all.into_iter().flatten().filter(exists).collect()
    }

    /// Passes all gates, or none and returns the first that is closed.
    pub fn pass(&mut self, keys: &[GateKey]) -> Result<(), GateKey> {
        let closed = |key: &&GateKey| {
            let gate = self.gates.get(key);
            gate.is_some_and(|gate| !self.is_open(gate))
        };
        if let Some(key) = keys.iter().find(closed) {
            return Err(key.clone());
        }
        for key in keys {
            self.gates.entry(key.clone()).or_default().current += 1;
        }
        Ok(())
    }

    pub fn release(&mut self, keys: &[GateKey]) {
        for key in keys {
            if let Some(gate) = self.gates.get_mut(key) {
                gate.current = gate.current.saturating_sub(1);
            }
            self.drop_unused(key);
        }
    }

    pub fn wait(&mut self, key: &GateKey, seniority: u64, slot: u32) {
        if let Some(gate) = self.gates.get_mut(key) {
            gate.waiting.insert(seniority, slot);
        }
    }

    pub fn forget(&mut self, key: &GateKey, seniority: u64) {
        if let Some(gate) = self.gates.get_mut(key) {
            gate.waiting.remove(&seniority);
        }
    }

    /// The oldest job that waits at one of these gates, of those that are open, and
    /// the gate. It waits no longer.
    pub fn next(&mut self, keys: &[GateKey]) -> Option<(GateKey, u32)> {
        let oldest = |key: &GateKey| {
            let gate = self.gates.get(key).filter(|gate| self.is_open(gate))?;
            gate.waiting.keys().next().copied()
        };
        let waiting = keys.iter().filter_map(|key| Some((oldest(key)?, key)));
        let (_, key) = waiting.min_by_key(|(seniority, _)| *seniority)?;
        let (_, slot) = self.gates.get_mut(key)?.waiting.pop_first()?;
        Some((key.clone(), slot))
    }

    pub fn in_flight(&self, key: &GateKey) -> u32 {
        self.gates.get(key).map_or(0, |gate| gate.current)
    }

    pub fn pending(&self, key: &GateKey) -> usize {
        self.gates.get(key).map_or(0, |gate| gate.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_share_a_limit() {
        let shares = |most, members| {
            let share = |index| {
                let mut gates = Gates::default();
                gates.set_members(members, index);
                gates.share(most)
            };
            (0..members).map(share).collect::<Vec<_>>()
        };
        assert_eq!(shares(6, 3), [2, 2, 2]);
        assert_eq!(shares(7, 3), [3, 2, 2]);
        assert_eq!(shares(1, 3), [1, 1, 1]);
        assert_eq!(shares(5, 1), [5]);
    }

    #[test]
    fn a_gate_is_in_force_as_long_as_a_stream_brings_it() {
        let namespace: Arc<str> = "ns".into();
        let mut gates = Gates::default();
        let limit = Limit {
            key: "t".into(),
            most: 1,
        };
        let keys = gates.open(&namespace, &[limit.clone(), limit]);
        assert_eq!(keys.len(), 1);
        let of_type = gates.of(&namespace, &"t".into(), Some("n"));
        assert_eq!(of_type, keys);
        assert_eq!(gates.pass(&keys), Ok(()));
        assert_eq!(gates.pass(&keys), Err(keys[0].clone()));
        gates.wait(&keys[0], 1, 7);
        assert_eq!(gates.next(&keys), None);
        assert_eq!(gates.close(&keys), [7]);
        assert_eq!(gates.pass(&keys), Ok(()), "who passed is still counted");
        gates.release(&keys);
        gates.release(&keys);
        assert!(gates.gates.is_empty());
    }
}
