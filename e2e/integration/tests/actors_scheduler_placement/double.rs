//! A scheduler that only leads placement, or says that it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use outrider_harness::port;
use outrider_proto::scheduler::v1 as wire;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use wire::report_actor_types_request::Msg;
use wire::scheduler_server::{Scheduler, SchedulerServer};
use wire::watch_jobs_request::WatchJobRequestType;

type Sending<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub struct Double {
    port: u16,
    hosts_tx: watch::Sender<Vec<wire::Host>>,
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// What streams of jobs have begun with.
    initials: Vec<wire::WatchJobsRequestInitial>,
    members: BTreeMap<u64, Member>,
    next: u64,
    seq: u64,
    /// Of all types, since there is one round at a time.
    round: Option<Round>,
    changed: bool,
    /// Types that were in the last round.
    known: BTreeSet<String>,
}

struct Member {
    host: wire::ActorHost,
    orders_tx: mpsc::Sender<Result<wire::PlacementOrder, Status>>,
}

struct Round {
    seq: u64,
    types: Vec<String>,
    operation: wire::Operation,
    /// The newest member that takes part.
    newest: u64,
    waits_for: BTreeSet<u64>,
}

impl Double {
    /// Announces nothing at first.
    pub async fn start() -> Result<Double> {
        Double::at(port::free()).await
    }

    pub async fn at(port: u16) -> Result<Double> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (hosts_tx, hosts) = watch::channel(Vec::new());
        let state = Arc::new(Mutex::new(State::default()));
        let service = Service {
            hosts,
            state: state.clone(),
            readers: Mutex::default(),
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(SchedulerServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener));
            let _ = serving.await;
        });
        Ok(Double {
            port,
            hosts_tx,
            state,
            _server: server,
        })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Announces the members: their addresses, who of them
    /// leads, and whether they could.
    pub fn announce(&self, hosts: &[(&str, bool, bool)]) {
        let hosts = hosts.iter().map(|(address, leader, could)| wire::Host {
            address: (*address).to_owned(),
            leader: *leader,
            scheduler_placement_enabled: *could,
        });
        self.hosts_tx.send_replace(hosts.collect());
    }

    /// It leads itself.
    pub fn lead(&self) {
        self.announce(&[(&self.address(), true, true)]);
    }

    pub fn initials(&self) -> Vec<wire::WatchJobsRequestInitial> {
        locked(&self.state).initials.clone()
    }

    /// How many hosts of a type are settled.
    pub fn hosts_of(&self, kind: &str) -> usize {
        let state = locked(&self.state);
        match state.round {
            Some(_) => 0,
            None => state.tables(&[kind.to_owned()]).entries[kind].hosts.len(),
        }
    }

    /// The addresses of the sidecars that follow it.
    pub fn followers(&self) -> BTreeSet<String> {
        let state = locked(&self.state);
        let members = state.members.values();
        members.map(|member| member.host.address.clone()).collect()
    }
}

fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Service {
    hosts: watch::Receiver<Vec<wire::Host>>,
    state: Arc<Mutex<State>>,
    readers: Mutex<JoinSet<()>>,
}

#[tonic::async_trait]
impl Scheduler for Service {
    async fn watch_hosts(
        &self,
        _: Request<wire::WatchHostsRequest>,
    ) -> Result<Response<Sending<wire::WatchHostsResponse>>, Status> {
        let answers = WatchStream::new(self.hosts.clone());
        let answers = answers.filter(|hosts| !hosts.is_empty());
        let answers = answers.map(|hosts| Ok(wire::WatchHostsResponse { hosts }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn watch_jobs(
        &self,
        request: Request<Streaming<wire::WatchJobsRequest>>,
    ) -> Result<Response<Sending<wire::WatchJobsResponse>>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?;
        let first = first.and_then(|first| first.watch_job_request_type);
        if let Some(WatchJobRequestType::Initial(initial)) = first {
            locked(&self.state).initials.push(initial);
        }
        // Nothing is due for as long as the sidecar listens.
        let silent = requests.filter_map(|_| None);
        Ok(Response::new(Box::pin(silent)))
    }

    async fn report_actor_types(
        &self,
        request: Request<Streaming<wire::ReportActorTypesRequest>>,
    ) -> Result<Response<Sending<wire::PlacementOrder>>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|first| first.msg);
        let Some(Msg::Report(host)) = first else {
            return Err(Status::invalid_argument(
                "first message must be a host report",
            ));
        };
        let (orders_tx, orders) = mpsc::channel(1000);
        let number = locked(&self.state).join(host, orders_tx);
        let state = self.state.clone();
        locked(&self.readers).spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                match message.msg {
                    Some(Msg::Report(host)) => locked(&state).report(number, host),
                    Some(Msg::Ack(ack)) => locked(&state).acknowledged(number, &ack),
                    None => break,
                }
            }
            locked(&state).leave(number);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(orders))))
    }
}

impl State {
    fn join(
        &mut self,
        host: wire::ActorHost,
        orders_tx: mpsc::Sender<Result<wire::PlacementOrder, Status>>,
    ) -> u64 {
        self.next += 1;
        self.seq += 1;
        let types: Vec<String> = match self.round {
            Some(_) => Vec::new(),
            None => self.known.iter().cloned().collect(),
        };
        for operation in [
            wire::Operation::Lock,
            wire::Operation::Update,
            wire::Operation::Unlock,
        ] {
            let is_update = operation == wire::Operation::Update;
            let order = wire::PlacementOrder {
                operation: operation.into(),
                seq: self.seq,
                tables: is_update.then(|| self.tables(&types)),
                ..Default::default()
            };
            let _ = orders_tx.try_send(Ok(order));
        }
        self.members.insert(self.next, Member { host, orders_tx });
        self.change();
        self.next
    }

    fn report(&mut self, number: u64, host: wire::ActorHost) {
        if let Some(member) = self.members.get_mut(&number) {
            member.host = host;
        }
        self.change();
    }

    fn leave(&mut self, number: u64) {
        self.members.remove(&number);
        self.change();
        self.acknowledge(number);
    }

    fn acknowledged(&mut self, number: u64, ack: &wire::PlacementOrderAck) {
        let is_due = self.round.as_ref().is_some_and(|round| {
            round.seq == ack.seq && i32::from(round.operation) == ack.operation
        });
        if is_due {
            self.acknowledge(number);
        }
    }

    fn change(&mut self) {
        self.changed = true;
        self.begin();
    }

    fn begin(&mut self) {
        if self.round.is_some() || !std::mem::take(&mut self.changed) {
            return;
        }
        let hosted = self
            .members
            .values()
            .flat_map(|it| it.host.actor_types.clone());
        let types: BTreeSet<String> = hosted.chain(self.known.iter().cloned()).collect();
        if types.is_empty() {
            return;
        }
        self.known.clone_from(&types);
        self.seq += 1;
        self.round = Some(Round {
            seq: self.seq,
            types: types.into_iter().collect(),
            operation: wire::Operation::Lock,
            newest: self.next,
            waits_for: self.members.keys().copied().collect(),
        });
        self.send();
    }

    /// Tells the members of the round its phase.
    fn send(&mut self) {
        let Some(round) = &self.round else {
            return;
        };
        let is_update = round.operation == wire::Operation::Update;
        let order = wire::PlacementOrder {
            operation: round.operation.into(),
            seq: round.seq,
            actor_types: match is_update {
                true => Vec::new(),
                false => round.types.clone(),
            },
            tables: is_update.then(|| self.tables(&round.types)),
            ..Default::default()
        };
        for number in &round.waits_for {
            if let Some(member) = self.members.get(number) {
                let _ = member.orders_tx.try_send(Ok(order.clone()));
            }
        }
    }

    fn acknowledge(&mut self, number: u64) {
        let Some(round) = &mut self.round else {
            return;
        };
        round.waits_for.remove(&number);
        if !round.waits_for.is_empty() {
            return;
        }
        let next = match round.operation {
            wire::Operation::Lock => wire::Operation::Update,
            wire::Operation::Update => wire::Operation::Unlock,
            _ => {
                self.round = None;
                return self.begin();
            }
        };
        round.operation = next;
        // Those that have joined since are for the next round.
        let members = self.members.range(..=round.newest);
        round.waits_for = members.map(|(number, _)| *number).collect();
        self.send();
        if self
            .round
            .as_ref()
            .is_some_and(|round| round.waits_for.is_empty())
        {
            self.acknowledge(0);
        }
    }

    fn tables(&self, types: &[String]) -> wire::PlacementTables {
        let table = |kind: &String| {
            let members = self.members.values().map(|member| &member.host);
            let hosts = members.filter(|host| host.actor_types.contains(kind));
            let hosts = hosts.map(|host| {
                let entry = wire::PlacementHost {
                    address: host.address.clone(),
                    app_id: host.app_id.clone(),
                };
                (host.address.clone(), entry)
            });
            wire::PlacementTable {
                hosts: hosts.collect(),
            }
        };
        wire::PlacementTables {
            entries: types
                .iter()
                .map(|kind| (kind.clone(), table(kind)))
                .collect(),
            hash_algorithm: wire::HashAlgorithm::Rendezvous.into(),
        }
    }
}
