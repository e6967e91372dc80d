//! The members, as one of them announces them.

use std::time::Duration;

use outrider_host::Target;
use outrider_proto::scheduler::v1::WatchHostsRequest;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_security::Connector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::placement::Leader;
use crate::{LARGEST, SCOPE, Scheduler};

/// Between two tries to follow the members.
const PAUSE: Duration = Duration::from_secs(1);
const DIAL_LIMIT: Duration = Duration::from_secs(5);
const PING_AFTER: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Host {
    pub address: String,
    channel: Channel,
}

impl Host {
    fn new(address: &str, connector: Connector) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(DIAL_LIMIT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self {
            address: address.to_owned(),
            channel: endpoint.connect_with_connector_lazy(connector),
        })
    }

    pub fn client(&self) -> SchedulerClient<Channel> {
        SchedulerClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }
}

impl Scheduler {
    /// Follows the members until `stopping` is cancelled. `ready` is whether
    /// they are known.
    pub async fn follow_hosts(self, ready: Target, stopping: CancellationToken) {
        if !self.is_enabled() {
            ready.ready();
            return;
        }
        let following = async {
            let addresses = &self.0.options.addresses;
            let mut turn = uuid::Uuid::new_v4().as_u128() as usize;
            loop {
                let address = &addresses[turn % addresses.len()];
                turn = turn.wrapping_add(1);
                // Ready stays ready: a scheduler that is away concerns jobs alone.
                let ended = self.follow(address, &ready).await;
                self.set_unreachable();
                match ended {
                    Ok(()) => {
                        tracing::debug!(target: SCOPE, "scheduler {address} has ended the stream of its members");
                    }
                    Err(status) => {
                        tracing::error!(target: SCOPE, "cannot watch the members of scheduler {address}, trying again: {}", status.message());
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = following => {}
        }
    }

    async fn follow(&self, address: &str, ready: &Target) -> Result<(), Status> {
        let connector = self.0.options.connector.clone();
        let host = Host::new(address, connector)
            .map_err(|error| Status::invalid_argument(format!("address {address}: {error}")))?;
        let watched = host.client().watch_hosts(WatchHostsRequest {}).await;
        let mut stream = match watched {
            Ok(stream) => stream.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                // A scheduler that does not announce its members has those that
                // are configured.
                self.announce(self.0.options.addresses.iter().map(String::as_str));
                self.set_leader(Leader::Absent);
                ready.ready();
                return std::future::pending().await;
            }
            Err(status) => return Err(status),
        };
        while let Some(answer) = stream.message().await? {
            self.announce(answer.hosts.iter().map(|host| host.address.as_str()));
            self.set_leader(Leader::of(&answer.hosts));
            ready.ready();
        }
        Ok(())
    }

    /// Members that were known keep their connection.
    fn announce<'a>(&self, addresses: impl Iterator<Item = &'a str>) {
        let mut addresses: Vec<&str> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.0.hosts.send_if_modified(|hosts| {
            if hosts.iter().map(|host| host.address.as_str()).eq(addresses.iter().copied()) {
                return false;
            }
            let known = std::mem::take(hosts);
            for address in addresses {
                if let Some(host) = known.iter().find(|host| host.address == address) {
                    hosts.push(host.clone());
                    continue;
                }
                match Host::new(address, self.0.options.connector.clone()) {
                    Ok(host) => hosts.push(host),
                    Err(error) => {
                        tracing::error!(target: SCOPE, "a scheduler announces a member at {address}, which is no address: {error}");
                    }
                }
            }
            tracing::info!(target: SCOPE, "Scheduler hosts updated: {:?}", hosts.iter().map(|host| &host.address).collect::<Vec<_>>());
            true
        });
    }
}
