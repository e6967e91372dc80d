//! Brokers and stores: what was acknowledged is there after any fault, and nothing is
//! acknowledged to a broker before the application has said so.

pub mod app;
mod outcome;
mod servers;
mod system;

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use crate::load::{Attempts, Load};
use crate::report::Row;
use crate::side::Side;
use crate::wait;
use servers::{BROKERS, Broker, STORES, Store};
use system::System;

/// A request takes at most so long: two times the limit of the policy, one for the store
/// and one for the broker, and what a busy machine takes.
const LIMIT: Duration = Duration::from_secs(8);
/// Seconds of load that are acknowledged before the fault, and after it.
const BEFORE: usize = 2;
const AFTER: usize = 3;
/// How long recovery is waited for, and then the rest of the events.
const RECOVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Workload {
    /// Events through one sidecar to a broker, from another to the application.
    Publish(Broker),
    /// Transactions of several keys.
    Transactions(Store),
    /// The same, with an event for each key.
    Outbox(Store),
}

/// What the fault befalls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The one that requests are sent to.
    Sidecar,
    /// The one that delivers.
    Subscriber,
    /// That events are delivered to.
    Application,
    /// The one that sends requests.
    Client,
    Broker,
    Store,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Kill,
    Freeze(Duration),
}

#[derive(Debug, Clone)]
pub struct Scenario {
    workload: Workload,
    target: Target,
    kind: Kind,
}

/// All of them.
pub fn scenarios(long: bool) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut freezes = vec![Duration::from_secs(10)];
    if long {
        freezes.push(Duration::from_secs(60));
    }
    let mut add = |workload, killed: &[Target], frozen: &[Target]| {
        let kills = killed.iter().map(|target| (*target, Kind::Kill));
        let freezes = frozen.iter().flat_map(|target| {
            let frozen = |length: &Duration| (*target, Kind::Freeze(*length));
            freezes.iter().map(frozen).collect::<Vec<_>>()
        });
        all.extend(kills.chain(freezes).map(|(target, kind)| Scenario {
            workload,
            target,
            kind,
        }));
    };
    use Target::{Application, Client, Sidecar, Subscriber};
    for broker in BROKERS {
        let programs = [Client, Sidecar, Subscriber, Application, Target::Broker];
        add(Workload::Publish(broker), &programs, &[Target::Broker]);
    }
    for store in STORES {
        let programs = [Client, Sidecar, Target::Store];
        let has_server = store != Store::Sqlite;
        let (killed, frozen) = match has_server {
            true => (&programs[..], &[Target::Store][..]),
            false => (&programs[..2], &[][..]),
        };
        add(Workload::Transactions(store), killed, frozen);
        let programs = [Client, Sidecar, Application, Target::Broker, Target::Store];
        let servers = [Target::Broker, Target::Store];
        let without = usize::from(!has_server);
        add(
            Workload::Outbox(store),
            &programs[..programs.len() - without],
            &servers[..servers.len() - without],
        );
    }
    all
}

impl Scenario {
    pub fn name(&self) -> String {
        let workload = match self.workload {
            Workload::Publish(broker) => format!("publish over {}", broker.name()),
            Workload::Transactions(store) => format!("transactions in {}", store.name()),
            Workload::Outbox(store) => format!("outbox of {}", store.name()),
        };
        let target = match self.target {
            Target::Sidecar => "sidecar",
            Target::Subscriber => "sidecar that delivers",
            Target::Application => "application",
            Target::Client => "client",
            Target::Broker => "broker",
            Target::Store => "store",
        };
        match self.kind {
            Kind::Kill => format!("{workload}: kill {target}"),
            Kind::Freeze(length) => format!("{workload}: freeze {target} {} s", length.as_secs()),
        }
    }

    pub fn is_short(&self) -> bool {
        let killed = |target| self.target == target && self.kind == Kind::Kill;
        match self.workload {
            Workload::Publish(Broker::Redis) => killed(Target::Subscriber),
            Workload::Transactions(Store::Redis) => killed(Target::Store),
            Workload::Outbox(Store::Sqlite) => killed(Target::Sidecar),
            _ => false,
        }
    }

    /// Why a loss here is not ours.
    fn excuse(&self) -> Option<&'static str> {
        None
    }

    pub async fn run(&self, side: &Side, folder: &Path) -> Result<Row> {
        let mut system = System::start(self.workload, side, folder).await?;
        let attempts = Attempts::default();
        let load = system.load(&attempts);
        let rate = self.workload.rate() as usize;
        let acknowledged = |since: SystemTime, seconds: usize| {
            let all = attempts.all();
            let after = all.iter().filter(|attempt| attempt.begun >= since);
            after.filter(|attempt| attempt.is_acknowledged()).count() >= seconds * rate
        };
        let begun = SystemTime::now();
        let before = wait::until(RECOVERY, || async { acknowledged(begun, BEFORE) }).await;
        ensure!(
            before,
            "the load does not get going: {:?}",
            attempts.all().last()
        );
        let healed = system.harm(&load, self.target, self.kind).await?;
        wait::until(RECOVERY, || async { acknowledged(healed, AFTER) }).await;
        load.stop().await;
        let attempts = attempts.all();
        // Events come late where a broker waits before it delivers again.
        wait::until(RECOVERY, || async { system.are_delivered(&attempts) }).await;
        let outcome = outcome::read(&system, attempts, healed).await?;
        Ok(outcome.row(self.excuse()))
    }
}

impl System {
    fn load(&self, attempts: &Attempts) -> Load {
        let (client, workload) = (self.client(), self.workload);
        let attempts = attempts.clone();
        Load::start(workload.rate(), move |number| {
            let (client, attempts) = (client.clone(), attempts.clone());
            let (path, body) = workload.request(number);
            async move {
                let request = client.post(&path, &body);
                attempts.make(number, LIMIT, request).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let all = scenarios(true);
        let names: BTreeSet<_> = all.iter().map(Scenario::name).collect();
        assert_eq!(names.len(), all.len());
        assert!(scenarios(false).len() < all.len());
        assert_eq!(all.iter().filter(|scenario| scenario.is_short()).count(), 3);
    }
}
