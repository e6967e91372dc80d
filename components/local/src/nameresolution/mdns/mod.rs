//! `nameresolution.mdns`: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/nr-mdns/>.
//!
//! A sidecar announces itself as a DNS-SD service whose type is the bare app
//! id, and finds others by asking for theirs. It also uses the answers to
//! others' questions, announcements and goodbyes of applications that it has
//! called: an instance gets calls soon after it starts, and none as soon as it
//! stops.

#[doc(hidden)]
pub mod fuzz;
mod instances;
mod message;
mod service;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Context, Error, Field, Metadata};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::instances::{Announcement, Instances};
use self::message::{INTERNET, Message, Name, PTR, Question};
use self::service::Service;
use self::socket::{Family, Socket};

/// There are no metadata fields.
pub const FIELDS: &[&[Field]] = &[];

const SCOPE: &str = "dapr.contrib";

/// How long the first lookup of an application may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// When the question is sent again, in case a packet was lost.
const RESEND_AFTER: Duration = Duration::from_millis(400);
/// How often known applications are asked for, and interfaces listed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Shortest time between two questions about an application because of failed
/// calls.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 6762 section 17.
const MAX_PACKET: usize = 9000;

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
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&network).run(opened));
    Ok(Arc::new(Mdns {
        network,
        app_id: context.app_id,
        tasks: Mutex::new(Some(tasks)),
    }))
}

struct Mdns {
    network: Arc<Network>,
    app_id: String,
    /// Dropping it ends the tasks.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Mdns {
    /// Ends the tasks and says goodbye. Only the first call does something.
    fn stop(&self) {
        let tasks = self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if tasks.is_some() {
            tracing::info!(target: SCOPE, "stopping mDNS server for app id: {}", self.app_id);
            self.network.multicast(&self.network.service.goodbye());
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl Resolver for Mdns {
    async fn resolve(&self, request: &Request<'_>) -> Result<String, Error> {
        let address = self.network.find(request.app_id).await?;
        Ok(address.to_string())
    }

    fn suspect(&self, request: &Request<'_>, address: &str) {
        if let Ok(address) = address.parse() {
            self.network.suspect(request.app_id, address);
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
    sockets: Mutex<Vec<Arc<Socket>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    instances: Instances,
    lookups: HashMap<String, Arc<Lookup>>,
    /// When a failed call last caused a question, by application.
    suspected: HashMap<String, Instant>,
}

/// A first search for an application, which all its callers wait for.
struct Lookup {
    resend_at: tokio::time::Instant,
    until: tokio::time::Instant,
    resent: AtomicBool,
    found: Notify,
}

impl Network {
    fn new(service: Service) -> Result<Network, Error> {
        let domain = Name::new("local").ok_or_else(|| Error::internal("no domain"))?;
        Ok(Network {
            service,
            domain,
            sockets: Mutex::default(),
            state: Mutex::default(),
        })
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<Arc<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens missing sockets, and closes those of interfaces that do not exist
    /// any more. Returns the new ones.
    fn open(&self) -> Vec<Arc<Socket>> {
        let interfaces = socket::interfaces();
        let mut sockets = self.sockets();
        sockets.retain(|socket| {
            let stays = interfaces.contains(&socket.interface);
            if !stays {
                socket.close();
            }
            stays
        });
        let mut opened = Vec::new();
        for interface in interfaces {
            for family in [Family::V4, Family::V6] {
                let same =
                    |socket: &Arc<Socket>| socket.interface == interface && socket.family == family;
                if sockets.iter().any(same) {
                    continue;
                }
                match Socket::open(interface, family) {
                    Ok(socket) => opened.push(Arc::new(socket)),
                    Err(error) => {
                        tracing::debug!(target: SCOPE, "no mDNS over {family:?} on interface {interface}: {error}");
                    }
                }
            }
        }
        sockets.extend(opened.iter().cloned());
        opened
    }

    fn multicast(&self, message: &Message) {
        let packet = message.encode();
        for socket in self.sockets().iter() {
            socket.send(&packet);
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
            if let Some(address) = state.instances.next(app_id, Instant::now()) {
                return Ok(address);
            }
            let now = tokio::time::Instant::now();
            match state.lookups.get(app_id) {
                Some(lookup) if now < lookup.until => (Arc::clone(lookup), false),
                _ => {
                    let lookup = Arc::new(Lookup {
                        resend_at: now + RESEND_AFTER,
                        until: now + LOOKUP_TIMEOUT,
                        resent: AtomicBool::new(false),
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
        for deadline in [lookup.resend_at, lookup.until] {
            let found = lookup.found.notified();
            tokio::pin!(found);
            // From here on no notification is missed.
            found.as_mut().enable();
            if let Some(address) = self.state().instances.next(app_id, Instant::now()) {
                return Ok(address);
            }
            let _ = tokio::time::timeout_at(deadline, found).await;
            if let Some(address) = self.state().instances.next(app_id, Instant::now()) {
                return Ok(address);
            }
            if deadline == lookup.resend_at && !lookup.resent.swap(true, Ordering::Relaxed) {
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

    /// Nothing answered at `address`: it is not used until it is announced
    /// again.
    fn suspect(&self, app_id: &str, address: SocketAddr) {
        let now = Instant::now();
        {
            let mut state = self.state();
            state.instances.remove(app_id, address);
            let last = state.suspected.insert(app_id.to_owned(), now);
            if last.is_some_and(|last| now < last + SUSPECT_INTERVAL) {
                return;
            }
        }
        self.ask(app_id);
    }

    /// Announces this sidecar, answers questions and refreshes the instances of
    /// others.
    async fn run(self: Arc<Self>, opened: Vec<Arc<Socket>>) {
        let mut readers = JoinSet::new();
        let listen = |readers: &mut JoinSet<()>, opened: Vec<Arc<Socket>>| {
            for socket in opened {
                readers.spawn(Arc::clone(&self).listen(socket));
            }
        };
        listen(&mut readers, opened);
        self.announce().await;
        loop {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            let opened = self.open();
            while readers.try_join_next().is_some() {}
            if !opened.is_empty() {
                listen(&mut readers, opened);
                self.multicast(&self.service.announcement());
            }
            for app_id in self.remove_expired() {
                self.ask(&app_id);
            }
        }
    }

    /// RFC 6762 sections 8.1 and 8.3.
    async fn announce(&self) {
        for _ in 0..2 {
            self.multicast(&self.service.probe(super::random() as u16));
            tokio::time::sleep(Duration::from_millis(super::random() % 250)).await;
        }
        self.multicast(&self.service.announcement());
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.multicast(&self.service.announcement());
    }

    /// Returns the applications that still have instances.
    fn remove_expired(&self) -> Vec<String> {
        let now = Instant::now();
        let mut state = self.state();
        state
            .suspected
            .retain(|_, last| now < *last + SUSPECT_INTERVAL);
        let waiting = tokio::time::Instant::now();
        state.lookups.retain(|_, lookup| waiting < lookup.until);
        state.instances.remove_expired(now)
    }

    async fn listen(self: Arc<Self>, socket: Arc<Socket>) {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            match socket.receive(&mut buffer).await {
                Ok(None) => return,
                Ok(Some((packet, from))) => {
                    if let Some(message) = Message::decode(packet) {
                        self.handle(&socket, &message, from);
                    }
                }
                Err(error) => {
                    tracing::debug!(target: SCOPE, "mDNS on interface {} ends: {error}", socket.interface);
                    self.sockets().retain(|other| !Arc::ptr_eq(other, &socket));
                    return;
                }
            }
        }
    }

    fn handle(&self, socket: &Socket, message: &Message, from: SocketAddr) {
        if !message.is_response() {
            for (answer, is_unicast) in self.service.answers(message) {
                let packet = answer.encode();
                if is_unicast {
                    socket.send_to(&packet, from);
                } else {
                    socket.send(&packet);
                }
            }
            return;
        }
        // RFC 6762 section 6: other responses are to be ignored.
        if from.port() != socket::PORT {
            return;
        }
        let now = Instant::now();
        for announcement in Announcement::all(message, &self.domain) {
            let mut state = self.state();
            let lookup = state.lookups.remove(&announcement.app_id);
            if lookup.is_some() || state.instances.has_app(&announcement.app_id) {
                let app_id = announcement.app_id.clone();
                state.instances.update(announcement, now);
                match lookup {
                    Some(lookup) if state.instances.has_live(&app_id, now) => {
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
