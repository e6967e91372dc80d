//! `nameresolution.mdns`: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/nr-mdns/>.
//!
//! A sidecar announces itself as a DNS-SD service whose type is the bare app
//! id, and finds others by asking for theirs. Whatever it hears about an
//! application that it has called is used, also answers to others' questions,
//! greetings and goodbyes, so that an instance is in use soon after it starts
//! and out of use as soon as it stops.

mod book;
#[doc(hidden)]
pub mod fuzz;
mod link;
mod message;
mod service;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Context, Error, Metadata};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::book::{Book, Sighting};
use self::link::{Family, Link};
use self::message::{INTERNET, Message, Name, PTR, Question};
use self::service::Service;

const SCOPE: &str = "dapr.contrib";

/// How long the first lookup of an application may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// When the question is asked a second time, should a packet be lost.
const REPEAT: Duration = Duration::from_millis(400);
/// How often known applications are asked for, and interfaces looked at.
const REFRESH: Duration = Duration::from_secs(30);
/// How often failed calls may cause a question about the same application.
const DOUBT: Duration = Duration::from_secs(1);
/// RFC 6762 section 17.
const LARGEST_PACKET: usize = 9000;

/// Announces this sidecar and starts to listen.
pub async fn connect(_: Metadata, context: Context) -> Result<Arc<dyn Resolver>, Error> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let service = Service::new(&context, &host, std::process::id())?;
    let network = Arc::new(Network::new(service)?);
    let opened = network.open();
    if opened.is_empty() {
        return Err(Error::unavailable(
            "mDNS found no network interface to use: another program may hold UDP port 5353 for itself",
        ));
    }
    let Context {
        app_id,
        host,
        internal_port: port,
        ..
    } = &context;
    tracing::info!(target: SCOPE, "local service entry announced: {app_id} -> {host}:{port}");
    let mut upkeep = JoinSet::new();
    upkeep.spawn(Arc::clone(&network).keep(opened));
    Ok(Arc::new(Multicast {
        network,
        app_id: context.app_id,
        upkeep: Mutex::new(Some(upkeep)),
    }))
}

struct Multicast {
    network: Arc<Network>,
    app_id: String,
    /// Dropping it ends the tasks.
    upkeep: Mutex<Option<JoinSet<()>>>,
}

impl Multicast {
    /// Ends the tasks and tells the others. Only the first call does something.
    fn stop(&self) {
        let upkeep = self
            .upkeep
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if upkeep.is_some() {
            tracing::info!(target: SCOPE, "stopping mDNS server for app id: {}", self.app_id);
            self.network.multicast(&self.network.service.goodbye());
        }
    }
}

impl Drop for Multicast {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Resolver for Multicast {
    async fn resolve(&self, request: &Request) -> Result<String, Error> {
        let address = self.network.find(&request.app_id).await?;
        Ok(address.to_string())
    }

    fn suspect(&self, request: &Request, address: &str) {
        if let Ok(address) = address.parse() {
            self.network.doubt(&request.app_id, address);
        }
    }

    async fn close(&self) -> Result<(), Error> {
        self.stop();
        Ok(())
    }
}

/// What the resolver and its tasks share.
struct Network {
    service: Service,
    /// `local.`
    domain: Name,
    links: Mutex<Vec<Arc<Link>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    book: Book,
    lookups: HashMap<String, Arc<Lookup>>,
    /// When a failed call last caused a question, per application.
    doubts: HashMap<String, Instant>,
}

/// A first search that all who want the same application wait for.
struct Lookup {
    repeat: tokio::time::Instant,
    until: tokio::time::Instant,
    repeated: AtomicBool,
    found: Notify,
}

impl Network {
    fn new(service: Service) -> Result<Network, Error> {
        let domain = Name::new("local").ok_or_else(|| Error::internal("no domain"))?;
        Ok(Network {
            service,
            domain,
            links: Mutex::default(),
            state: Mutex::default(),
        })
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what is missing and drops the links of interfaces that are gone.
    fn open(&self) -> Vec<Arc<Link>> {
        let interfaces = link::interfaces();
        let mut links = self.links();
        links.retain(|link| {
            let stays = interfaces.contains(&link.interface);
            if !stays {
                link.close();
            }
            stays
        });
        let mut opened = Vec::new();
        for interface in interfaces {
            for family in [Family::V4, Family::V6] {
                let same = |link: &Arc<Link>| link.interface == interface && link.family == family;
                if links.iter().any(same) {
                    continue;
                }
                match Link::open(interface, family) {
                    Ok(link) => opened.push(Arc::new(link)),
                    Err(error) => {
                        tracing::debug!(target: SCOPE, "no mDNS over {family:?} on interface {interface}: {error}");
                    }
                }
            }
        }
        links.extend(opened.iter().cloned());
        opened
    }

    fn multicast(&self, message: &Message) {
        let packet = message.encode();
        for link in self.links().iter() {
            link.send(&packet);
        }
    }

    /// Asks for all instances of an application.
    fn ask(&self, app_id: &str) {
        if let Some(name) = Name::new(&format!("{app_id}.local")) {
            self.multicast(&Message {
                id: super::random() as u16,
                questions: vec![Question {
                    name,
                    kind: PTR,
                    class: INTERNET,
                }],
                ..Message::default()
            });
        }
    }

    async fn find(&self, app_id: &str) -> Result<SocketAddr, Error> {
        let (lookup, first) = {
            let mut state = self.state();
            if let Some(address) = state.book.next(app_id, Instant::now()) {
                return Ok(address);
            }
            let now = tokio::time::Instant::now();
            match state.lookups.get(app_id) {
                Some(lookup) if now < lookup.until => (Arc::clone(lookup), false),
                _ => {
                    let lookup = Arc::new(Lookup {
                        repeat: now + REPEAT,
                        until: now + PATIENCE,
                        repeated: AtomicBool::new(false),
                        found: Notify::new(),
                    });
                    state.lookups.insert(app_id.to_owned(), Arc::clone(&lookup));
                    (lookup, true)
                }
            }
        };
        if first {
            tracing::debug!(target: SCOPE, "Browsing for first mDNS address for app id {app_id}");
            self.ask(app_id);
        }
        for deadline in [lookup.repeat, lookup.until] {
            let found = lookup.found.notified();
            tokio::pin!(found);
            // From here on no notification is missed.
            found.as_mut().enable();
            if let Some(address) = self.state().book.next(app_id, Instant::now()) {
                return Ok(address);
            }
            let _ = tokio::time::timeout_at(deadline, found).await;
            if let Some(address) = self.state().book.next(app_id, Instant::now()) {
                return Ok(address);
            }
            if deadline == lookup.repeat && !lookup.repeated.swap(true, Ordering::Relaxed) {
                self.ask(app_id);
            }
        }
        let mut state = self.state();
        if state
            .lookups
            .get(app_id)
            .is_some_and(|current| Arc::ptr_eq(current, &lookup))
        {
            state.lookups.remove(app_id);
        }
        Err(Error::not_found(format!("couldn't find service: {app_id}")))
    }

    /// Nothing answered at `address`: it is out until it is heard of again.
    fn doubt(&self, app_id: &str, address: SocketAddr) {
        let now = Instant::now();
        {
            let mut state = self.state();
            state.book.strike(app_id, address);
            let last = state.doubts.insert(app_id.to_owned(), now);
            if last.is_some_and(|last| now < last + DOUBT) {
                return;
            }
        }
        self.ask(app_id);
    }

    /// Introduces this sidecar, answers questions and keeps the book in order.
    async fn keep(self: Arc<Self>, opened: Vec<Arc<Link>>) {
        let mut readers = JoinSet::new();
        let listen = |readers: &mut JoinSet<()>, opened: Vec<Arc<Link>>| {
            for link in opened {
                readers.spawn(Arc::clone(&self).listen(link));
            }
        };
        listen(&mut readers, opened);
        self.introduce().await;
        loop {
            tokio::time::sleep(REFRESH).await;
            let opened = self.open();
            while readers.try_join_next().is_some() {}
            if !opened.is_empty() {
                listen(&mut readers, opened);
                self.multicast(&self.service.hello());
            }
            for app_id in self.tidy() {
                self.ask(&app_id);
            }
        }
    }

    /// RFC 6762 sections 8.1 and 8.3.
    async fn introduce(&self) {
        for _ in 0..2 {
            self.multicast(&self.service.probe(super::random() as u16));
            tokio::time::sleep(Duration::from_millis(super::random() % 250)).await;
        }
        self.multicast(&self.service.hello());
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.multicast(&self.service.hello());
    }

    /// Forgets what is outdated; tells which applications are in use.
    fn tidy(&self) -> Vec<String> {
        let now = Instant::now();
        let mut state = self.state();
        state.doubts.retain(|_, last| now < *last + DOUBT);
        let waiting = tokio::time::Instant::now();
        state.lookups.retain(|_, lookup| waiting < lookup.until);
        state.book.tidy(now)
    }

    async fn listen(self: Arc<Self>, link: Arc<Link>) {
        let mut buffer = vec![0; LARGEST_PACKET];
        loop {
            match link.receive(&mut buffer).await {
                Ok(None) => return,
                Ok(Some((packet, from))) => {
                    if let Some(message) = Message::decode(packet) {
                        self.hear(&link, &message, from);
                    }
                }
                Err(error) => {
                    tracing::debug!(target: SCOPE, "mDNS on interface {} ends: {error}", link.interface);
                    self.links().retain(|other| !Arc::ptr_eq(other, &link));
                    return;
                }
            }
        }
    }

    fn hear(&self, link: &Link, message: &Message, from: SocketAddr) {
        if !message.is_response() {
            for (answer, alone) in self.service.answers(message) {
                let packet = answer.encode();
                if alone {
                    link.send_to(&packet, from);
                } else {
                    link.send(&packet);
                }
            }
            return;
        }
        // RFC 6762 section 6.
        if from.port() != link::PORT {
            return;
        }
        let now = Instant::now();
        for sighting in Sighting::all(message, &self.domain) {
            let mut state = self.state();
            let lookup = state.lookups.remove(&sighting.app_id);
            if lookup.is_some() || state.book.knows(&sighting.app_id) {
                let app_id = sighting.app_id.clone();
                state.book.note(sighting, now);
                match lookup {
                    Some(lookup) if state.book.reaches(&app_id, now) => {
                        lookup.found.notify_waiters();
                    }
                    Some(lookup) => {
                        state.lookups.insert(app_id, lookup);
                    }
                    None => {}
                }
            }
        }
    }
}
