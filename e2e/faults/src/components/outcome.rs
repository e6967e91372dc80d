//! What has become of all requests.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use outrider_harness::http::Client;
use serde_json::{Value, json};

use super::RECOVERY;
use super::app::History;
use super::system::{KEYS, PROBES, System, key};
use super::{LIMIT, Workload};
use crate::load::{Attempt, Outcome as Answer, between};
use crate::report::{Row, seconds};
use crate::wait;

/// Keys of one request.
const BULK: usize = 90;

#[derive(Debug, Default)]
pub struct Outcome {
    sent: usize,
    acknowledged: usize,
    /// Acknowledged to the client, and not there or never delivered.
    lost: usize,
    /// Events that came and were never done, although the broker has an acknowledgement.
    early: usize,
    /// Events that were done more than once.
    doubled: usize,
    /// Transactions of which not all keys are there.
    half: usize,
    /// Events of keys that are not there.
    baseless: usize,
    hung: usize,
    /// From the healing until something begun after it was done.
    recovered: Option<Duration>,
    /// Until the last event was done of what was begun before the healing.
    delivered: Option<Duration>,
}

pub async fn read(system: &System, attempts: Vec<Attempt>, healed: SystemTime) -> Result<Outcome> {
    let workload = system.workload;
    let history = system.app.as_ref().map(|app| app.history());
    let keys = match workload {
        Workload::Publish(_) => None,
        _ => {
            system.is_ready().await?;
            let last = attempts.iter().map(|attempt| attempt.id).max().unwrap_or(0);
            Some(stored(system, last).await?)
        }
    };
    let mut outcome = Outcome {
        sent: attempts.len(),
        ..Outcome::default()
    };
    outcome.hung = attempts
        .iter()
        .filter(|it| it.outcome == Answer::Hung)
        .count();
    for attempt in attempts.iter().filter(|attempt| attempt.is_acknowledged()) {
        outcome.acknowledged += 1;
        let kept = |keys: &HashSet<String>| (0..KEYS).all(|i| keys.contains(&key(attempt.id, i)));
        let events = workload.events(attempt.id);
        let came = |history: &History| events.iter().all(|id| history.got.contains_key(id));
        let is_there = keys.as_ref().is_none_or(kept) && history.as_ref().is_none_or(came);
        outcome.lost += usize::from(!is_there);
        if attempt.begun >= healed
            && let Some(done) = done(attempt, &events, history.as_ref())
        {
            let took = between(healed, done);
            outcome.recovered = Some(outcome.recovered.map_or(took, |least| least.min(took)));
        }
    }
    if let Some(keys) = &keys {
        outcome.half = half(keys);
    }
    if let Some(history) = &history {
        outcome.events(history, keys.as_ref());
        let before = attempts
            .iter()
            .filter(|it| it.is_acknowledged() && it.begun < healed);
        let times = before.filter_map(|it| done(it, &workload.events(it.id), Some(history)));
        outcome.delivered = times.max().map(|last| between(healed, last));
    }
    Ok(outcome)
}

/// When all of a request was done, if it was.
fn done(attempt: &Attempt, events: &[u64], history: Option<&History>) -> Option<SystemTime> {
    let Some(history) = history.filter(|_| !events.is_empty()) else {
        return Some(attempt.ended);
    };
    let first = |id: &u64| history.done.get(id)?.first().copied();
    let times: Option<Vec<_>> = events.iter().map(first).collect();
    times?.into_iter().max()
}

/// How many transactions have some of their keys, and not all.
fn half(keys: &HashSet<String>) -> usize {
    let numbers: HashSet<&str> = keys
        .iter()
        .filter_map(|key| Some(key.split_once('-')?.0))
        .collect();
    let whole = |number: &&&str| (0..KEYS).all(|index| keys.contains(&format!("{number}-{index}")));
    numbers.len() - numbers.iter().filter(whole).count()
}

/// The keys that are there, of transactions up to this number.
async fn stored(system: &System, last: u64) -> Result<HashSet<String>> {
    let names: Vec<String> = (0..=last)
        .flat_map(|number| (0..KEYS).map(move |index| key(number, index)))
        .collect();
    let mut found = HashSet::new();
    let client = system.client();
    for names in names.chunks(BULK) {
        let items = wait::some(RECOVERY, || bulk(&client, names)).await;
        let items = items.context("the store cannot be read any more")?;
        for item in items {
            if !item["data"].is_null()
                && let Some(name) = item["key"].as_str()
            {
                found.insert(name.to_owned());
            }
        }
    }
    Ok(found)
}

/// These keys, if all can be read.
async fn bulk(client: &Client, names: &[String]) -> Option<Vec<Value>> {
    let body = json!({"keys": names, "parallelism": 10});
    let asked = client.post("/v1.0/state/store/bulk", &body);
    let answer = tokio::time::timeout(LIMIT, asked).await.ok()?.ok()?;
    let read = answer.json().ok()?;
    let items = read.as_array()?;
    let is_read = |item: &Value| item["error"].is_null();
    let whole = items.len() == names.len() && items.iter().all(is_read);
    (answer.status == 200 && whole).then(|| items.clone())
}

impl Outcome {
    fn events(&mut self, history: &History, keys: Option<&HashSet<String>>) {
        let ours = |id: &&u64| **id < PROBES;
        let got: Vec<&u64> = history.got.keys().filter(ours).collect();
        self.early = got.iter().filter(|id| !history.is_done(***id)).count();
        let done = history.done.iter().filter(|(id, _)| ours(id));
        self.doubled = done.filter(|(_, times)| times.len() > 1).count();
        if let Some(keys) = keys {
            let has_key = |id: &&&u64| keys.contains(&key(***id / KEYS, ***id % KEYS));
            self.baseless = got.len() - got.iter().filter(has_key).count();
        }
    }

    pub fn row(self, excuse: Option<&'static str>) -> Row {
        let mut wrong = Vec::new();
        for (count, what) in [
            (self.lost, "lost"),
            (
                self.early,
                "acknowledged to the broker before they were done",
            ),
            (self.half, "half applied"),
            (self.baseless, "events of nothing"),
            (self.hung, "hung"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        if self.recovered.is_none() {
            wrong.push(format!("not recovered within {} s", RECOVERY.as_secs()));
        }
        let time = |time: Option<Duration>| time.map_or("-".to_owned(), seconds);
        Row {
            figures: vec![
                ("sent", self.sent.to_string()),
                ("acked", self.acknowledged.to_string()),
                ("lost", self.lost.to_string()),
                ("early", self.early.to_string()),
                ("doubled", self.doubled.to_string()),
                ("half", self.half.to_string()),
                ("baseless", self.baseless.to_string()),
                ("hung", self.hung.to_string()),
                ("recovered s", time(self.recovered)),
                ("delivered s", time(self.delivered)),
            ],
            wrong,
            excuse,
        }
    }
}
