//! The rounds of one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{Content, Effect, Order, Size, Table, Tables, Types};
use crate::{Host, Phase, Settings, StreamId};

/// Rounds that run at once. A sidecar that reports other types all the time
/// begins no more than these.
pub(super) const MOST_ROUNDS: usize = 16;

#[derive(Debug)]
pub(super) struct Rounds {
    name: Arc<str>,
    settings: Settings,
    /// Until then changes are gathered, and no round begins.
    gathering: Option<Instant>,
    streams: BTreeMap<StreamId, Member>,
    types: BTreeMap<Arc<str>, Type>,
    /// Types whose tables no round, or none that has ended, has sent to all.
    changed: BTreeSet<Arc<str>>,
    rounds: BTreeMap<u64, Round>,
    last_seq: u64,
    /// Types that are new begin above the versions of those that are forgotten.
    floor: u64,
    /// Hosts of all types together.
    hosts: usize,
}

#[derive(Debug)]
struct Member {
    address: Arc<str>,
    app_id: Arc<str>,
    types: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Type {
    /// By address; the oldest stream of an address has it. Nobody takes over the
    /// address of a sidecar that is connected.
    hosts: BTreeMap<Arc<str>, BTreeMap<StreamId, Arc<str>>>,
    version: u64,
    /// Whether any sidecar ever got a table of it.
    known: bool,
    /// The round that runs.
    round: Option<u64>,
}

#[derive(Debug)]
struct Round {
    types: Types,
    phase: Phase,
    members: BTreeSet<StreamId>,
    /// Who has not acknowledged the phase.
    silent: BTreeSet<StreamId>,
    deadline: Instant,
    since: Instant,
}

impl Rounds {
    pub fn new(name: Arc<str>, settings: Settings, first_round: Instant, now: Instant) -> Self {
        Self {
            name,
            settings,
            gathering: (first_round > now).then_some(first_round),
            streams: BTreeMap::new(),
            types: BTreeMap::new(),
            changed: BTreeSet::new(),
            rounds: BTreeMap::new(),
            last_seq: 0,
            floor: 0,
            hosts: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub fn size(&self) -> Size {
        Size {
            streams: self.streams.len(),
            hosts: self.hosts,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        let rounds = self.rounds.values().map(|round| round.deadline);
        rounds.chain(self.gathering).min()
    }

    /// A new stream gets at once what is not changing; the rest comes with
    /// rounds, of which those that run now will be repeated.
    pub fn open(&mut self, now: Instant, stream: StreamId, host: Host, effects: &mut Vec<Effect>) {
        self.join(stream, host);
        let running = self.rounds.values().flat_map(|round| round.types.iter());
        self.changed.extend(running.cloned());
        self.tell_all(stream, effects);
        self.settle(now, effects);
    }

    /// Types that a stream goes on hosting are not touched.
    pub fn report(
        &mut self,
        now: Instant,
        stream: StreamId,
        host: Host,
        effects: &mut Vec<Effect>,
    ) {
        let Some(member) = self.streams.get_mut(&stream) else {
            return;
        };
        if *member.address != *host.name || *member.app_id != *host.app_id {
            self.leave(stream);
            self.join(stream, host);
            return self.settle(now, effects);
        }
        let types = host.actor_types.into_iter().map(Arc::from).collect();
        let before = std::mem::replace(&mut member.types, types);
        let (address, app_id) = (member.address.clone(), member.app_id.clone());
        let added: Vec<Arc<str>> = member.types.difference(&before).cloned().collect();
        let removed: Vec<Arc<str>> = before.difference(&member.types).cloned().collect();
        for name in added {
            self.add(stream, (&address, &app_id), name);
        }
        for name in removed {
            self.remove(stream, &address, name);
        }
        self.settle(now, effects);
    }

    pub fn acknowledge(
        &mut self,
        now: Instant,
        (stream, phase, seq): (StreamId, Phase, u64),
        effects: &mut Vec<Effect>,
    ) {
        if let Some(round) = self.rounds.get_mut(&seq)
            && round.phase == phase
            && round.silent.remove(&stream)
        {
            self.advance(now, seq, effects);
            if !self.rounds.contains_key(&seq) {
                self.settle(now, effects);
            }
        }
    }

    pub fn close(&mut self, now: Instant, stream: StreamId, effects: &mut Vec<Effect>) {
        self.leave(stream);
        self.excuse(now, &BTreeSet::from([stream]), effects);
        self.settle(now, effects);
    }

    /// Handles what is due.
    pub fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let late = self.rounds.extract_if(.., |_, round| round.deadline <= now);
        let late: Vec<(u64, Round)> = late.collect();
        let mut gone = BTreeSet::new();
        for (seq, round) in &late {
            self.give_up(*seq, round, &mut gone, effects);
        }
        // Those that are left wait for the end of the round. What it was about
        // is locked again at once.
        for (seq, round) in late {
            let streams: Vec<StreamId> = round.members.difference(&gone).copied().collect();
            if !streams.is_empty() {
                let order = self.order(seq, Content::Unlock(round.types));
                effects.push(Effect::Send { streams, order });
            }
        }
        self.excuse(now, &gone, effects);
        self.settle(now, effects);
    }

    /// Closes the silent streams of a round that is late. What it was about
    /// starts again, for those that are left.
    fn give_up(
        &mut self,
        seq: u64,
        round: &Round,
        gone: &mut BTreeSet<StreamId>,
        effects: &mut Vec<Effect>,
    ) {
        for name in round.types.iter() {
            if let Some(it) = self.types.get_mut(name) {
                it.round = None;
            }
            self.changed.insert(name.clone());
        }
        let streams: Vec<StreamId> = round.silent.difference(gone).copied().collect();
        for &stream in &streams {
            self.leave(stream);
        }
        gone.extend(&streams);
        if !streams.is_empty() {
            let timeout = self.settings.timeout;
            effects.push(Effect::Close {
                streams,
                timeout,
                seq,
            });
        }
    }

    /// No round waits for these any more.
    fn excuse(&mut self, now: Instant, gone: &BTreeSet<StreamId>, effects: &mut Vec<Effect>) {
        if gone.is_empty() {
            return;
        }
        let seqs: Vec<u64> = self.rounds.keys().copied().collect();
        for seq in seqs {
            if let Some(round) = self.rounds.get_mut(&seq) {
                for stream in gone {
                    round.members.remove(stream);
                    round.silent.remove(stream);
                }
                self.advance(now, seq, effects);
            }
        }
    }

    /// Adds a stream, and to the hosts of its types.
    fn join(&mut self, stream: StreamId, host: Host) {
        let address: Arc<str> = host.name.into();
        let app_id: Arc<str> = host.app_id.into();
        let types: BTreeSet<Arc<str>> = host.actor_types.into_iter().map(Arc::from).collect();
        for name in &types {
            self.add(stream, (&address, &app_id), name.clone());
        }
        let member = Member {
            address,
            app_id,
            types,
        };
        self.streams.insert(stream, member);
    }

    fn add(&mut self, stream: StreamId, (address, app_id): (&Arc<str>, &Arc<str>), name: Arc<str>) {
        let it = self.types.entry(name.clone()).or_insert_with(|| Type {
            hosts: BTreeMap::new(),
            version: self.floor,
            known: false,
            round: None,
        });
        let streams = it.hosts.entry(address.clone()).or_default();
        let before = streams.values().next().cloned();
        streams.insert(stream, app_id.clone());
        self.hosts += 1;
        if before.as_ref() != streams.values().next() {
            self.changed.insert(name);
        }
    }

    /// Takes it out of all.
    fn leave(&mut self, stream: StreamId) {
        if let Some(member) = self.streams.remove(&stream) {
            for name in member.types {
                self.remove(stream, &member.address, name);
            }
        }
    }

    fn remove(&mut self, stream: StreamId, address: &Arc<str>, name: Arc<str>) {
        let Some(it) = self.types.get_mut(&name) else {
            return;
        };
        let Some(streams) = it.hosts.get_mut(address) else {
            return;
        };
        let before = streams.values().next().cloned();
        if streams.remove(&stream).is_some() {
            self.hosts -= 1;
        }
        let is_changed = before.as_ref() != streams.values().next();
        if streams.is_empty() {
            it.hosts.remove(address);
        }
        if it.hosts.is_empty() && !it.known {
            self.forget(&name);
        } else if is_changed {
            self.changed.insert(name);
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        self.changed.remove(name);
        if let Some(it) = self.types.remove(name) {
            self.floor = self.floor.max(it.version);
        }
    }

    /// All that is neither changing nor locked, in a round for one stream, which
    /// waits for nothing.
    fn tell_all(&mut self, stream: StreamId, effects: &mut Vec<Effect>) {
        let is_at_rest =
            |name: &Arc<str>, it: &Type| it.round.is_none() && !self.changed.contains(name);
        let types = self.types.iter();
        let tables = types.filter(|(name, it)| is_at_rest(name, it));
        let tables: Tables = Arc::new(
            tables
                .map(|(name, it)| (name.clone(), it.table()))
                .collect(),
        );
        self.last_seq += 1;
        let nothing: Types = Arc::from([]);
        for content in [
            Content::Lock(nothing.clone()),
            Content::Update(tables),
            Content::Unlock(nothing),
        ] {
            let streams = vec![stream];
            let order = self.order(self.last_seq, content);
            effects.push(Effect::Send { streams, order });
        }
    }

    fn order(&self, seq: u64, content: Content) -> Order {
        Order {
            namespace: self.name.clone(),
            seq,
            content,
        }
    }

    /// Begins a round over all types that have changed and that no round holds.
    fn settle(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.gathering.is_some_and(|until| until > now) {
            return;
        }
        self.gathering = None;
        if self.streams.is_empty() || self.rounds.len() >= MOST_ROUNDS {
            return;
        }
        let is_free = |name: &&Arc<str>| self.types.get(*name).is_some_and(|it| it.round.is_none());
        let types: Types = self.changed.iter().filter(is_free).cloned().collect();
        if types.is_empty() {
            return;
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        for name in types.iter() {
            self.changed.remove(name);
            if let Some(it) = self.types.get_mut(name) {
                it.version += 1;
                it.known = true;
                it.round = Some(seq);
            }
        }
        let round = Round {
            types,
            phase: Phase::Lock,
            members: self.streams.keys().copied().collect(),
            silent: BTreeSet::new(),
            deadline: now,
            since: now,
        };
        self.rounds.insert(seq, round);
        self.enter(now, seq, Phase::Lock, effects);
    }

    /// Goes on to the next phase once nobody is silent.
    fn advance(&mut self, now: Instant, seq: u64, effects: &mut Vec<Effect>) {
        while let Some(round) = self.rounds.get(&seq)
            && round.silent.is_empty()
        {
            match round.phase {
                Phase::Lock => self.enter(now, seq, Phase::Update, effects),
                Phase::Update => self.enter(now, seq, Phase::Unlock, effects),
                Phase::Unlock => self.finish(now, seq, effects),
            }
        }
    }

    fn enter(&mut self, now: Instant, seq: u64, phase: Phase, effects: &mut Vec<Effect>) {
        let timeout = self.settings.timeout;
        let Some(round) = self.rounds.get_mut(&seq) else {
            return;
        };
        round.phase = phase;
        round.silent.clone_from(&round.members);
        round.deadline = now + timeout;
        let streams: Vec<StreamId> = round.members.iter().copied().collect();
        if streams.is_empty() {
            return;
        }
        let types = round.types.clone();
        let content = match phase {
            Phase::Lock => Content::Lock(types),
            Phase::Update => Content::Update(self.tables(&types)),
            Phase::Unlock => Content::Unlock(types),
        };
        let order = self.order(seq, content);
        effects.push(Effect::Send { streams, order });
    }

    fn tables(&self, types: &Types) -> Tables {
        let table = |name: &Arc<str>| Some((name.clone(), self.types.get(name)?.table()));
        Arc::new(types.iter().filter_map(table).collect())
    }

    fn finish(&mut self, now: Instant, seq: u64, effects: &mut Vec<Effect>) {
        let Some(round) = self.rounds.remove(&seq) else {
            return;
        };
        let took = now.saturating_duration_since(round.since);
        effects.push(Effect::Ended { took });
        for name in round.types.iter() {
            if let Some(it) = self.types.get_mut(name) {
                it.round = None;
                if it.hosts.is_empty() && !self.changed.contains(name) {
                    self.forget(name);
                }
            }
        }
        let window = self.settings.window;
        if !window.is_zero() && !self.changed.is_empty() && self.gathering.is_none() {
            self.gathering = Some(now + window);
        }
    }
}

impl Type {
    fn table(&self) -> Table {
        let host = |(address, streams): (&Arc<str>, &BTreeMap<StreamId, Arc<str>>)| {
            let (_, app_id) = streams.first_key_value()?;
            Some((address.clone(), app_id.clone()))
        };
        Table {
            version: self.version,
            hosts: self.hosts.iter().filter_map(host).collect(),
        }
    }
}
