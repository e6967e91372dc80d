//! Which instances of which applications are known.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::message::{Data, Message, Name};

/// How long an instance is believed to be there after it was last heard of.
const KEPT: Duration = Duration::from_secs(60);
/// Of one application; strangers can announce as many as they like.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub struct Book {
    apps: HashMap<String, App>,
}

#[derive(Debug, Default)]
struct App {
    instances: Vec<Instance>,
    /// Counts up, to take turns.
    turn: usize,
}

#[derive(Debug)]
struct Instance {
    name: Name,
    address: SocketAddr,
    until: Instant,
}

/// What a message says about one instance.
#[derive(Debug, PartialEq)]
pub struct Sighting {
    pub app_id: String,
    name: Name,
    addresses: Vec<SocketAddr>,
    /// It says goodbye.
    gone: bool,
}

impl Sighting {
    /// Reads the instances in a response. All records of an instance are in
    /// the same message.
    pub fn all(message: &Message, domain: &Name) -> Vec<Sighting> {
        let mut found = Vec::new();
        for record in message.records() {
            let Data::Pointer(instance) = &record.data else {
                continue;
            };
            let is_instance = instance.before(&record.name).is_some();
            let Some(app_id) = record.name.before(domain).filter(|_| is_instance) else {
                continue;
            };
            let mut sighting = Sighting {
                app_id,
                name: instance.clone(),
                addresses: Vec::new(),
                gone: record.ttl == 0,
            };
            if sighting.complete(message) {
                found.push(sighting);
            }
        }
        found
    }

    /// Adds what the other records say. Whether it makes sense.
    fn complete(&mut self, message: &Message) -> bool {
        let mine = message.records().filter(|record| record.name == self.name);
        let (mut service, mut named) = (None, false);
        for record in mine {
            match &record.data {
                Data::Service { port, target } => {
                    service = Some((*port, target));
                    self.gone |= record.ttl == 0;
                }
                Data::Text(strings) => {
                    named = !strings.is_empty()
                        && strings.iter().all(|text| text == self.app_id.as_bytes());
                }
                _ => {}
            }
        }
        let Some((port, target)) = service else {
            return self.gone;
        };
        let hosts = message.records().filter(|record| record.name == *target);
        let ips: Vec<_> = hosts
            .filter_map(|record| match record.data {
                Data::V4(ip) => Some(IpAddr::V4(ip)),
                Data::V6(ip) => Some(IpAddr::V6(ip)),
                _ => None,
            })
            .collect();
        // One address of each family is enough to reach it.
        let first = |v4| ips.iter().find(|ip| ip.is_ipv4() == v4);
        let addresses = [first(true), first(false)].into_iter().flatten();
        self.addresses = addresses.map(|ip| SocketAddr::new(*ip, port)).collect();
        self.gone || (named && !self.addresses.is_empty())
    }
}

impl Book {
    pub fn knows(&self, app_id: &str) -> bool {
        self.apps.contains_key(app_id)
    }

    /// Whether an instance is known that should be there.
    pub fn reaches(&self, app_id: &str, now: Instant) -> bool {
        let instances = self.apps.get(app_id).map(|app| &app.instances);
        instances
            .into_iter()
            .flatten()
            .any(|instance| now < instance.until)
    }

    /// Writes a sighting down.
    pub fn note(&mut self, sighting: Sighting, now: Instant) {
        let app = self.apps.entry(sighting.app_id).or_default();
        if sighting.gone {
            app.instances.retain(|instance| {
                instance.name != sighting.name
                    || !(sighting.addresses.is_empty()
                        || sighting.addresses.contains(&instance.address))
            });
            return;
        }
        for address in sighting.addresses {
            let known = app
                .instances
                .iter()
                .position(|known| known.address == address);
            let seen = Instance {
                name: sighting.name.clone(),
                address,
                until: now + KEPT,
            };
            match known {
                Some(known) => app.instances[known] = seen,
                None if app.instances.len() < MOST => app.instances.push(seen),
                None => {}
            }
        }
    }

    /// The address whose turn it is. IPv6 only if there is no IPv4.
    pub fn next(&mut self, app_id: &str, now: Instant) -> Option<SocketAddr> {
        let app = self.apps.get_mut(app_id)?;
        let live = |v4: bool| {
            let live = app
                .instances
                .iter()
                .filter(move |instance| now < instance.until);
            live.map(|instance| instance.address)
                .filter(move |address| address.is_ipv4() == v4)
        };
        let v4 = live(true).count() > 0;
        let turn = app.turn.checked_rem(live(v4).count())?;
        let address = live(v4).nth(turn);
        app.turn = turn + 1;
        address
    }

    /// Forgets one address.
    pub fn strike(&mut self, app_id: &str, address: SocketAddr) {
        if let Some(app) = self.apps.get_mut(app_id) {
            app.instances.retain(|instance| instance.address != address);
        }
    }

    /// Forgets what is outdated, and tells which applications are left.
    pub fn tidy(&mut self, now: Instant) -> Vec<String> {
        self.apps.retain(|_, app| {
            app.instances.retain(|instance| now < instance.until);
            !app.instances.is_empty()
        });
        self.apps.keys().cloned().collect()
    }
}
