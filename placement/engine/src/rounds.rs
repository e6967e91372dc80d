//! The rounds of one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::{Effect, Host, Membership, Order, Phase, Settings, StreamId, Tables};

#[derive(Debug)]
pub struct Rounds {
    settings: Settings,
    /// Of the last round, also while it runs.
    version: u64,
    state: State,
    /// Streams that take part in rounds.
    members: BTreeMap<StreamId, Host>,
    /// Streams that came while a round was running, or was awaited.
    joining: BTreeMap<StreamId, Host>,
    /// Whether a member left or reported other types, and no round knows of it yet.
    changed: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Running {
        phase: Phase,
        /// Who has not acknowledged the phase.
        silent: BTreeSet<StreamId>,
        deadline: Instant,
    },
    /// After a round, changes are gathered until the next one begins.
    Gathering {
        until: Instant,
    },
}

impl Rounds {
    /// No round begins before `first`. The first one has the version after
    /// `version`.
    pub fn new(settings: Settings, version: u64, first: Option<Instant>, now: Instant) -> Self {
        let state = match first {
            Some(first) if first > now => State::Gathering { until: first },
            _ => State::Idle,
        };
        Self {
            settings,
            version,
            state,
            members: BTreeMap::new(),
            joining: BTreeMap::new(),
            changed: false,
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joining.is_empty()
    }

    /// Those with actors, also if no round knows of them yet.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let all = self.members.values().chain(self.joining.values());
        all.filter(|host| host.is_actor_host())
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Running { deadline, .. } => Some(deadline),
            State::Gathering { until } => Some(until),
        }
    }

    pub fn membership(&self) -> Membership {
        let hosts = self.members.values().filter(|host| host.is_actor_host());
        let mut hosts: Vec<Host> = hosts.cloned().collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        Membership {
            version: self.version,
            hosts,
            streams: self.members.len() + self.joining.len(),
        }
    }

    pub fn open(&mut self, now: Instant, stream: StreamId, host: Host, effects: &mut Vec<Effect>) {
        self.joining.insert(stream, host);
        if matches!(self.state, State::Idle) {
            self.settle(now, effects);
        }
    }

    /// A stream that hosts other types than before starts a round. One that is
    /// under way ends first: a sidecar that changes its mind all the time cannot
    /// keep the others locked.
    pub fn report(
        &mut self,
        now: Instant,
        stream: StreamId,
        host: Host,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(joining) = self.joining.get_mut(&stream) {
            *joining = host;
            return;
        }
        let Some(member) = self.members.get_mut(&stream) else {
            return;
        };
        let changed = member.actor_types != host.actor_types;
        *member = host;
        if !changed {
            return;
        }
        match self.state {
            State::Idle => self.begin(now, effects),
            // The next round will serve it too.
            State::Running { .. } | State::Gathering { .. } => self.changed = true,
        }
    }

    pub fn acknowledge(
        &mut self,
        now: Instant,
        stream: StreamId,
        acknowledged: Option<Phase>,
        version: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let State::Running { phase, silent, .. } = &mut self.state else {
            return;
        };
        let of_this_round = version.is_none_or(|version| version == self.version);
        let of_this_phase = acknowledged.is_none_or(|acknowledged| acknowledged == *phase);
        if of_this_round && of_this_phase && silent.remove(&stream) {
            self.advance(now, effects);
        }
    }

    pub fn close(&mut self, now: Instant, stream: StreamId, effects: &mut Vec<Effect>) {
        if let Some(host) = self.joining.remove(&stream) {
            // It was announced: clients of Dapr may wait for the round that says it is gone.
            self.changed |= host.is_actor_host();
            return;
        }
        let Some(host) = self.members.remove(&stream) else {
            return;
        };
        self.changed |= host.is_actor_host();
        match &mut self.state {
            State::Idle => self.settle(now, effects),
            State::Running { silent, .. } => {
                silent.remove(&stream);
                self.advance(now, effects);
            }
            State::Gathering { .. } => {}
        }
    }

    /// Handles what is due.
    pub fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match &mut self.state {
            State::Running {
                deadline, silent, ..
            } if *deadline <= now => {
                let streams = std::mem::take(silent);
                for stream in &streams {
                    self.members.remove(stream);
                }
                effects.push(Effect::Close {
                    streams: streams.into_iter().collect(),
                    timeout: self.settings.timeout,
                    version: self.version,
                });
                self.join();
                self.begin(now, effects);
            }
            State::Gathering { until } if *until <= now => self.stop_gathering(now, effects),
            _ => {}
        }
    }

    /// A round may begin now.
    pub fn stop_gathering(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.state, State::Gathering { .. }) {
            self.state = State::Idle;
            self.settle(now, effects);
        }
    }

    /// Goes on to the next phase once nobody is silent.
    fn advance(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let State::Running { phase, silent, .. } = &self.state {
            if !silent.is_empty() {
                return;
            }
            match phase {
                Phase::Lock => self.enter(now, Phase::Update, effects),
                Phase::Update => self.enter(now, Phase::Unlock, effects),
                Phase::Unlock => {
                    self.state = State::Idle;
                    self.finish(now, effects);
                }
            }
        }
    }

    /// After a round.
    fn finish(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.settings.window.is_zero() {
            return self.settle(now, effects);
        }
        self.state = State::Gathering {
            until: now + self.settings.window,
        };
    }

    /// Nothing runs: one round serves all that has changed meanwhile.
    fn settle(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.changed || self.joining.values().any(Host::is_actor_host) {
            self.join();
            return self.begin(now, effects);
        }
        // Sidecars that host nothing change no table: they get the one there is.
        let streams: Vec<StreamId> = self.joining.keys().copied().collect();
        self.join();
        if !streams.is_empty() {
            let version = self.version;
            let tables = self.tables();
            for order in [
                Order::Lock { version },
                Order::Update { version, tables },
                Order::Unlock { version },
            ] {
                let streams = streams.clone();
                effects.push(Effect::Send { streams, order });
            }
        }
    }

    fn join(&mut self) {
        self.members.append(&mut self.joining);
    }

    /// Begins a round.
    fn begin(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.version += 1;
        self.changed = false;
        self.enter(now, Phase::Lock, effects);
        self.advance(now, effects);
    }

    fn enter(&mut self, now: Instant, phase: Phase, effects: &mut Vec<Effect>) {
        let streams: Vec<StreamId> = self.members.keys().copied().collect();
        self.state = State::Running {
            phase,
            silent: streams.iter().copied().collect(),
            deadline: now + self.settings.timeout,
        };
        let version = self.version;
        let order = match phase {
            Phase::Lock => Order::Lock { version },
            Phase::Update => Order::Update {
                version,
                tables: self.tables(),
            },
            Phase::Unlock => Order::Unlock { version },
        };
        if !streams.is_empty() {
            effects.push(Effect::Send { streams, order });
        }
    }

    fn tables(&self) -> Tables {
        let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        // Of two streams with one name, the later one counts.
        for host in self.members.values() {
            for actor_type in &host.actor_types {
                let table = tables.entry(actor_type.clone()).or_default();
                table.insert(host.name.clone(), host.app_id.clone());
            }
        }
        Arc::new(tables)
    }
}
