//! Results that are kept, each followed by searches that wait for changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::SCOPE;
use super::client::{Consul, Instance};
use super::settings::Settings;

/// How many names are followed; others are searched each time.
const MOST: usize = 1000;
/// A name that nobody has asked for during this time is let go.
const IDLE: Duration = Duration::from_secs(600);
/// How long a search waits where the Configuration does not say.
const WAIT: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(180);

pub struct Kept {
    shared: Arc<Shared>,
    following: Mutex<JoinSet<()>>,
}

struct Shared {
    consul: Arc<Consul>,
    settings: Arc<Settings>,
    names: Mutex<HashMap<String, Name>>,
}

struct Name {
    /// None while they are not known.
    instances: Option<Vec<Instance>>,
    asked: Instant,
}

impl Kept {
    pub fn new(consul: Arc<Consul>, settings: Arc<Settings>) -> Kept {
        Kept {
            shared: Arc::new(Shared {
                consul,
                settings,
                names: Mutex::default(),
            }),
            following: Mutex::default(),
        }
    }

    /// The healthy instances, if they are known and there are some. A name that
    /// is asked for the first time is followed from now on.
    pub fn get(&self, app_id: &str) -> Option<Vec<Instance>> {
        let mut names = self.shared.names();
        if let Some(name) = names.get_mut(app_id) {
            name.asked = Instant::now();
            return name.instances.clone().filter(|all| !all.is_empty());
        }
        if names.len() >= MOST {
            return None;
        }
        let name = Name {
            instances: None,
            asked: Instant::now(),
        };
        names.insert(app_id.to_owned(), name);
        drop(names);
        let mut following = self.following.lock().unwrap_or_else(|e| e.into_inner());
        while following.try_join_next().is_some() {}
        following.spawn(self.shared.clone().follow(app_id.to_owned()));
        None
    }

    pub fn close(&self) {
        let mut following = self.following.lock().unwrap_or_else(|e| e.into_inner());
        following.abort_all();
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.names.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes what a search has found. Returns whether the name is still wanted.
    fn note(&self, app_id: &str, instances: Option<Vec<Instance>>) -> bool {
        let mut names = self.names();
        let Some(name) = names.get_mut(app_id) else {
            return false;
        };
        name.instances = instances;
        let is_wanted = name.asked.elapsed() < IDLE;
        if !is_wanted {
            names.remove(app_id);
        }
        is_wanted
    }

    async fn follow(self: Arc<Self>, app_id: String) {
        let Settings {
            search, port_key, ..
        } = &*self.settings;
        let wait = search.wait.unwrap_or(WAIT);
        let (mut index, mut pause) = (0, FIRST_PAUSE);
        loop {
            // Waiting searches are never answered by the agent's cache.
            let since = Some((index, wait));
            let found = self.consul.search(&app_id, search, port_key, since).await;
            match found {
                Ok(found) => {
                    // An index that goes back, or is absent, says nothing.
                    index = match found.index >= index {
                        true => found.index,
                        false => 0,
                    };
                    pause = FIRST_PAUSE;
                    if !self.note(&app_id, Some(found.instances)) {
                        return;
                    }
                    if index == 0 {
                        tokio::time::sleep(FIRST_PAUSE).await;
                    }
                }
                Err(error) => {
                    let seconds = pause.as_secs();
                    tracing::error!(target: SCOPE, "consul service-watcher error: {error}, retry in {seconds}s");
                    index = 0;
                    // Each call asks for itself until this works again.
                    if !self.note(&app_id, None) {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
