//! The election among the replicas, over gRPC.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use outrider_placement_engine::before::{Heard, Hosts, Stamp};
use outrider_placement_engine::election::{Answer, Broadcast, Election, Request};
use outrider_proto::election::v1 as wire;
use outrider_proto::election::v1::ask_request::Question;
use outrider_proto::election::v1::election_client::ElectionClient;
use outrider_proto::election::v1::election_server;
use outrider_security::Connector;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::server::Lead;

/// For one question to one replica.
const TIMEOUT: Duration = Duration::from_millis(500);
/// For the others to learn that this replica ends.
const FAREWELL: Duration = Duration::from_millis(200);

/// Cloning shares it.
#[derive(Clone)]
pub struct Replica(Arc<Shared>);

struct Shared {
    id: String,
    election: Mutex<Election>,
    others: Vec<(String, Channel)>,
    lead: Lead,
    /// The next deadline may be another.
    changed: Notify,
}

/// What was asked of a replica, and when.
struct Asked {
    replica: usize,
    sent: Instant,
    request: Request,
    answer: Result<Answer, Status>,
}

/// The address of this replica.
pub fn own_address<'a>(id: &str, replicas: &'a [(String, String)]) -> anyhow::Result<&'a str> {
    if let Some((_, address)) = replicas.iter().find(|(name, _)| name == id) {
        return Ok(address);
    }
    let all: Vec<_> = replicas
        .iter()
        .map(|(name, address)| format!("{{{name} {address}}}"))
        .collect();
    bail!(
        "address for node {id} not found in raft peers [{}]",
        all.join(" ")
    )
}

impl Replica {
    pub fn new(
        id: String,
        replicas: &[(String, String)],
        connector: &Connector,
        lead: Lead,
    ) -> anyhow::Result<Self> {
        let mut others = Vec::new();
        for (name, address) in replicas.iter().filter(|(name, _)| *name != id) {
            let channel = channel(address, connector.clone())
                .with_context(|| format!("address of replica {name}"))?;
            others.push((name.clone(), channel));
        }
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let election = Election::new(id.clone(), others.len() + 1, seed, Instant::now());
        Ok(Self(Arc::new(Shared {
            id,
            election: Mutex::new(election),
            others,
            lead,
            changed: Notify::new(),
        })))
    }

    /// Takes part until `stopping` is cancelled; then ends all streams and lets
    /// another replica lead.
    pub async fn run(self, stopping: CancellationToken) {
        tracing::info!(target: "dapr.placement", "Node id={} is waiting for leadership", self.0.id);
        let mut asked = JoinSet::new();
        loop {
            let deadline = self.election().next_deadline();
            let next = tokio::select! {
                () = stopping.cancelled() => break,
                () = self.0.changed.notified() => None,
                () = tokio::time::sleep_until(deadline.into()) => self.wake(),
                Some(Ok(answered)) = asked.join_next() => self.take(answered),
            };
            self.follow_election();
            self.post(next, &mut asked);
        }
        self.0.lead.stop();
        let resigned = self.election().resign(Instant::now());
        self.post(resigned, &mut asked);
        let answered = async { while asked.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(FAREWELL, answered).await;
    }

    fn election(&self) -> MutexGuard<'_, Election> {
        self.0.election.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wake(&self) -> Option<Broadcast> {
        let hosts = self.0.lead.hosts();
        let mut election = self.election();
        if let Some(hosts) = hosts {
            election.set_hosts(hosts);
        }
        election.wake(Instant::now())
    }

    /// Serves, or stops serving, as the election says.
    fn follow_election(&self) {
        let (leads, before) = {
            let election = self.election();
            (election.leads(), election.before())
        };
        let changed = match leads {
            true => self.0.lead.begin(before),
            false => self.0.lead.follow(),
        };
        if changed {
            match leads {
                true => {
                    tracing::info!(target: "dapr.placement", "Node id={} has acquired leadership", self.0.id);
                }
                false => {
                    tracing::warn!(target: "dapr.placement", "Node id={} has lost leadership: sidecars connect to another replica", self.0.id);
                }
            }
        }
    }

    fn post(&self, broadcast: Option<Broadcast>, asked: &mut JoinSet<Asked>) {
        let Some(Broadcast(request)) = broadcast else {
            return;
        };
        for (replica, (_, channel)) in self.0.others.iter().enumerate() {
            let (channel, request) = (channel.clone(), request.clone());
            asked.spawn(async move {
                let sent = Instant::now();
                let answer = ask(channel, &request).await;
                Asked {
                    replica,
                    sent,
                    request,
                    answer,
                }
            });
        }
    }

    fn take(&self, asked: Asked) -> Option<Broadcast> {
        let (name, _) = self.0.others.get(asked.replica)?;
        match asked.answer {
            Ok(answer) => {
                let now = Instant::now();
                let mut election = self.election();
                election.answer(now, name, asked.sent, &asked.request, answer)
            }
            Err(status) => {
                tracing::debug!(target: "dapr.placement", "replica {name} does not answer: {status}");
                None
            }
        }
    }
}

fn channel(address: &str, connector: Connector) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn ask(channel: Channel, request: &Request) -> Result<Answer, Status> {
    let question = match request.clone() {
        Request::Vote {
            term,
            candidate,
            stands,
        } => Question::Vote(wire::Vote {
            term,
            candidate,
            stands,
        }),
        Request::Heartbeat {
            term,
            leader,
            number,
            hosts,
        } => Question::Heartbeat(wire::Heartbeat {
            term,
            leader,
            number,
            hosts: hosts.map(written),
        }),
        Request::Resign { term, leader } => {
            Question::Resignation(wire::Resignation { term, leader })
        }
    };
    let request = wire::AskRequest {
        question: Some(question),
    };
    let mut client = ElectionClient::new(channel);
    let answer = tokio::time::timeout(TIMEOUT, client.ask(request)).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    let wire::AskResponse {
        term,
        granted,
        before,
    } = answer.into_inner();
    Ok(Answer {
        term,
        granted,
        before: before.map(|heard| Heard {
            stamp: Stamp {
                term: heard.term,
                number: heard.number,
            },
            hosts: heard.hosts.map(read),
            ago: Duration::from_millis(heard.milliseconds_ago),
        }),
    })
}

fn written(Hosts { count, sum }: Hosts) -> wire::Hosts {
    wire::Hosts { count, sum }
}

fn read(wire::Hosts { count, sum }: wire::Hosts) -> Hosts {
    Hosts { count, sum }
}

#[tonic::async_trait]
impl election_server::Election for Replica {
    async fn ask(
        &self,
        request: tonic::Request<wire::AskRequest>,
    ) -> Result<Response<wire::AskResponse>, Status> {
        let request = match request.into_inner().question {
            Some(Question::Vote(wire::Vote {
                term,
                candidate,
                stands,
            })) => Request::Vote {
                term,
                candidate,
                stands,
            },
            Some(Question::Heartbeat(wire::Heartbeat {
                term,
                leader,
                number,
                hosts,
            })) => Request::Heartbeat {
                term,
                leader,
                number,
                hosts: hosts.map(read),
            },
            Some(Question::Resignation(wire::Resignation { term, leader })) => {
                Request::Resign { term, leader }
            }
            None => return Err(Status::invalid_argument("a question is required")),
        };
        let answer = self.election().request(Instant::now(), &request);
        self.follow_election();
        self.0.changed.notify_one();
        let before = answer.before.map(|heard| wire::Heard {
            hosts: heard.hosts.map(written),
            milliseconds_ago: u64::try_from(heard.ago.as_millis()).unwrap_or(u64::MAX),
            term: heard.stamp.term,
            number: heard.stamp.number,
        });
        Ok(Response::new(wire::AskResponse {
            term: answer.term,
            granted: answer.granted,
            before,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_is_not_in_the_list_is_refused() {
        let replicas = [
            ("a".to_owned(), "1.2.3.4:1".to_owned()),
            ("b".to_owned(), "x:2".to_owned()),
        ];
        assert_eq!(own_address("b", &replicas).unwrap(), "x:2");
        assert_eq!(
            own_address("c", &replicas).unwrap_err().to_string(),
            "address for node c not found in raft peers [{a 1.2.3.4:1} {b x:2}]"
        );
    }
}
