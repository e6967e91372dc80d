//! How each resource is doing: whether it is in use as it is wanted, and if
//! not, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use outrider_crds::Kind;

/// Has an entry for each resource that exists, and none for others.
#[derive(Default)]
pub struct Table(Mutex<BTreeMap<Key, Entry>>);

/// Kind and name.
type Key = (&'static str, String);

#[derive(Clone)]
enum Entry {
    Running,
    NotRunning(Trouble),
}

/// A resource that is not in use as it is wanted; what it was before may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: Cause,
    /// Since when it has not been in use.
    pub since: Timestamp,
    /// When it is tried again, where that is known.
    pub next_try: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It starts when another resource is in use.
    Parked(WaitsFor),
    /// Never with the values of secrets.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    SecretStore(String),
}

impl Cause {
    /// As the metadata API names it.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Parked(_) => "parked",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parked(WaitsFor::SecretStore(store)) => {
                write!(f, "it waits for the secret store {store}")
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Table {
    pub fn running<K: Kind>(&self, name: &str) {
        self.entries().insert(key::<K>(name), Entry::Running);
    }

    pub fn parked<K: Kind>(&self, name: &str, waits_for: WaitsFor) {
        self.trouble::<K>(name, Cause::Parked(waits_for));
    }

    pub fn failed<K: Kind>(&self, name: &str, why: &str) {
        self.trouble::<K>(name, Cause::Failed(why.to_owned()));
    }

    /// One that is in trouble already is so since then.
    fn trouble<K: Kind>(&self, name: &str, cause: Cause) {
        let mut entries = self.entries();
        let key = key::<K>(name);
        let since = match entries.get(&key) {
            Some(Entry::NotRunning(trouble)) => trouble.since,
            Some(Entry::Running) | None => Timestamp::now(),
        };
        let trouble = Trouble {
            cause,
            since,
            next_try: None,
        };
        entries.insert(key, Entry::NotRunning(trouble));
    }

    /// When one that is not running is tried again: in `pause`, or just now.
    pub fn next_try<K: Kind>(&self, name: &str, pause: Option<Duration>) {
        if let Some(Entry::NotRunning(trouble)) = self.entries().get_mut(&key::<K>(name)) {
            let at = |pause| Timestamp::now().checked_add(pause).ok();
            trouble.next_try = pause.and_then(at);
        }
    }

    pub fn remove<K: Kind>(&self, name: &str) {
        self.entries().remove(&key::<K>(name));
    }

    /// Forgets what does not exist any more.
    pub fn retain<K: Kind>(&self, exists: impl Fn(&str) -> bool) {
        self.entries()
            .retain(|(kind, name), _| *kind != K::KIND || exists(name));
    }

    /// What is not running, by kind and name.
    pub fn not_running(&self) -> Vec<(&'static str, String, Trouble)> {
        let entries = self.entries();
        let all = entries
            .iter()
            .filter_map(|((kind, name), entry)| match entry {
                Entry::Running => None,
                Entry::NotRunning(trouble) => Some((*kind, name.clone(), trouble.clone())),
            });
        all.collect()
    }

    /// Why a resource is not in use as it is wanted, if it is not.
    pub fn trouble_of<K: Kind>(&self, name: &str) -> Option<Cause> {
        match self.entries().get(&key::<K>(name))? {
            Entry::Running => None,
            Entry::NotRunning(trouble) => Some(trouble.cause.clone()),
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn key<K: Kind>(name: &str) -> Key {
    (K::KIND, name.to_owned())
}

#[cfg(test)]
mod tests {
    use outrider_crds::{Component, Subscription};

    use super::*;

    fn causes(table: &Table) -> Vec<(&'static str, String, String)> {
        let all = table.not_running().into_iter();
        all.map(|(kind, name, trouble)| (kind, name, trouble.cause.to_string()))
            .collect()
    }

    #[test]
    fn only_what_is_not_running_is_listed_until_it_runs_or_is_gone() {
        let table = Table::default();
        table.running::<Component>("fine");
        table.failed::<Component>("a", "no server");
        table.failed::<Subscription>("a", "no rule");
        table.parked::<Component>("b", WaitsFor::SecretStore("vault".to_owned()));
        let of = |kind, name: &str, cause: &str| (kind, name.to_owned(), cause.to_owned());
        assert_eq!(
            causes(&table),
            [
                of("Component", "a", "no server"),
                of("Component", "b", "it waits for the secret store vault"),
                of("Subscription", "a", "no rule"),
            ]
        );
        table.running::<Component>("b");
        table.retain::<Component>(|name| name != "a");
        assert_eq!(causes(&table), [of("Subscription", "a", "no rule")]);
        table.remove::<Subscription>("a");
        assert!(causes(&table).is_empty());
    }

    #[test]
    fn trouble_counts_from_the_first_failure_and_a_new_one_has_no_next_try_yet() {
        let table = Table::default();
        let trouble = || table.not_running()[0].2.clone();
        table.failed::<Component>("a", "first");
        table.next_try::<Component>("a", Some(Duration::from_secs(60)));
        let first = trouble();
        assert!(first.next_try.unwrap() > first.since);
        while Timestamp::now() <= first.since {}
        table.failed::<Component>("a", "second");
        assert_eq!((trouble().since, trouble().next_try), (first.since, None));
        table.running::<Component>("a");
        table.failed::<Component>("a", "third");
        assert!(trouble().since > first.since);
        table.next_try::<Component>("unknown", Some(Duration::ZERO));
        assert_eq!(table.not_running().len(), 1);
    }
}
