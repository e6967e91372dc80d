//! The breakers of targets that have many, one per endpoint or actor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::breaker::Breaker;

/// Breakers by key, a limited number of them.
#[derive(Debug)]
pub struct Breakers {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// With the time of their last use.
    breakers: HashMap<String, (Arc<Breaker>, u64)>,
    time: u64,
}

impl Breakers {
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            kept: Mutex::default(),
        }
    }

    /// The breaker of `key`. Where there are too many, one that is at rest is
    /// dropped before one that is not, the least recently used first.
    pub fn get(&self, key: &str, new: impl FnOnce() -> Breaker) -> Arc<Breaker> {
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        kept.time += 1;
        let time = kept.time;
        if let Some((breaker, used)) = kept.breakers.get_mut(key) {
            *used = time;
            return breaker.clone();
        }
        if kept.breakers.len() >= self.most {
            let oldest = kept
                .breakers
                .iter()
                .min_by_key(|(_, (breaker, used))| (!breaker.is_at_rest(), *used))
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.breakers.remove(&oldest);
            }
        }
        let breaker = Arc::new(new());
        kept.breakers
            .insert(key.to_owned(), (breaker.clone(), time));
        breaker
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_condition::Condition;

    use super::*;
    use crate::breaker::{Settings, State};
    use crate::metrics::{Origin, Sourced};

    #[tokio::test]
    async fn an_open_breaker_is_kept_however_many_others_come() {
        let value = Settings {
            name: "b".to_owned(),
            max_requests: 1,
            interval: None,
            timeout: Duration::from_secs(60),
            trip: Some(Condition::compile("true", &[]).unwrap()),
        };
        let origin = Arc::new(Origin::default());
        let settings = Arc::new(Sourced { value, origin });
        let breakers = Breakers::new(2);
        let get = |key: &str| breakers.get(key, || Breaker::new(key.to_owned(), &settings, None));
        drop(get("bad").admit());
        let first = get("0");
        for number in 1..10 {
            get(&number.to_string());
        }
        assert_eq!(get("bad").state(), State::Open);
        assert!(Arc::ptr_eq(&get("9"), &get("9")));
        assert!(!Arc::ptr_eq(&first, &get("0")));
        assert_eq!(breakers.kept.lock().unwrap().breakers.len(), 2);
    }
}
