//! The known instances of applications.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::message::{Data, Message, Name};

/// How long an instance is used after its last announcement.
const TTL: Duration = Duration::from_secs(60);
/// Of one application: anyone on the network can announce any number.
const MAX_INSTANCES: usize = 1024;

#[derive(Debug, Default)]
pub struct Instances {
    apps: HashMap<String, App>,
}

#[derive(Debug, Default)]
struct App {
    instances: Vec<Instance>,
    /// Counts up, so that one instance is used after the other.
    next: usize,
}

#[derive(Debug)]
struct Instance {
    name: Name,
    address: SocketAddr,
    until: Instant,
}

/// What a message says about one instance.
#[derive(Debug, PartialEq)]
pub struct Announcement {
    pub app_id: String,
    name: Name,
    addresses: Vec<SocketAddr>,
    /// Whether the instance says goodbye.
    goodbye: bool,
}

impl Announcement {
    /// Reads the instances in a response. All records of an instance are in
    /// the same message.
    pub fn all(message: &Message, domain: &Name) -> Vec<Announcement> {
        let mut found = Vec::new();
        for record in message.records() {
            let Data::Pointer(instance) = &record.data else {
                continue;
            };
            let is_instance = instance.before(&record.name).is_some();
            let Some(app_id) = record.name.before(domain).filter(|_| is_instance) else {
                continue;
            };
            let mut announcement = Announcement {
                app_id,
                name: instance.clone(),
                addresses: Vec::new(),
                goodbye: record.ttl == 0,
            };
            if announcement.complete(message) {
                found.push(announcement);
            }
        }
        found
    }

    /// Adds what the other records say. Returns whether the records are
    /// complete and belong together.
    fn complete(&mut self, message: &Message) -> bool {
        let mine = message.records().filter(|record| record.name == self.name);
        let (mut service, mut has_app_id) = (None, false);
        for record in mine {
            match &record.data {
                Data::Service { port, target } => {
                    service = Some((*port, target));
                    self.goodbye |= record.ttl == 0;
                }
                Data::Text(strings) => {
                    has_app_id = !strings.is_empty()
                        && strings.iter().all(|text| text == self.app_id.as_bytes());
                }
                _ => {}
            }
        }
        let Some((port, target)) = service else {
            return self.goodbye;
        };
        let hosts = message.records().filter(|record| record.name == *target);
        let ips: Vec<_> = hosts
            .filter_map(|record| match record.data {
                Data::V4(ip) => Some(IpAddr::V4(ip)),
                Data::V6(ip) => Some(IpAddr::V6(ip)),
                _ => None,
            })
            .collect();
        // One address of each family is enough.
        let first = |v4| ips.iter().find(|ip| ip.is_ipv4() == v4);
        let addresses = [first(true), first(false)].into_iter().flatten();
        self.addresses = addresses.map(|ip| SocketAddr::new(*ip, port)).collect();
        self.goodbye || (has_app_id && !self.addresses.is_empty())
    }
}

impl Instances {
    pub fn has_app(&self, app_id: &str) -> bool {
        self.apps.contains_key(app_id)
    }

    /// Whether an application has an instance that has not expired.
    pub fn has_live(&self, app_id: &str, now: Instant) -> bool {
        let instances = self.apps.get(app_id).map(|app| &app.instances);
        instances
            .into_iter()
            .flatten()
            .any(|instance| now < instance.until)
    }

    /// Adds, renews or removes an instance.
    pub fn update(&mut self, announcement: Announcement, now: Instant) {
        let app = self.apps.entry(announcement.app_id).or_default();
        if announcement.goodbye {
            app.instances.retain(|instance| {
                instance.name != announcement.name
                    || !(announcement.addresses.is_empty()
                        || announcement.addresses.contains(&instance.address))
            });
            return;
        }
        for address in announcement.addresses {
            let known = app
                .instances
                .iter()
                .position(|known| known.address == address);
            let instance = Instance {
                name: announcement.name.clone(),
                address,
                until: now + TTL,
            };
            match known {
                Some(known) => app.instances[known] = instance,
                None if app.instances.len() < MAX_INSTANCES => app.instances.push(instance),
                None => {}
            }
        }
    }

    /// The address to use now: each in its turn, IPv6 only if there is no IPv4.
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
        let next = app.next.checked_rem(live(v4).count())?;
        let address = live(v4).nth(next);
        app.next = next + 1;
        address
    }

    /// Removes one address.
    pub fn remove(&mut self, app_id: &str, address: SocketAddr) {
        if let Some(app) = self.apps.get_mut(app_id) {
            app.instances.retain(|instance| instance.address != address);
        }
    }

    /// Returns the applications that still have instances.
    pub fn remove_expired(&mut self, now: Instant) -> Vec<String> {
        self.apps.retain(|_, app| {
            app.instances.retain(|instance| now < instance.until);
            !app.instances.is_empty()
        });
        self.apps.keys().cloned().collect()
    }
}
