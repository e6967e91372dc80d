//! Calls to etcd's servers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use outrider_components::{Error, Kind, Secret};
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

use crate::api::{
    LeaseRequest, LeaseResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

/// How long one operation may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 256 << 20;

/// The servers of one cluster.
pub struct Client {
    channels: Vec<Channel>,
    /// The server that answered last.
    current: AtomicUsize,
}

/// The client's certificate with its key, and those that sign the servers', in
/// PEM.
pub struct Tls {
    pub authority: String,
    pub certificate: String,
    pub key: Secret,
}

impl Client {
    /// `endpoints` are hosts with ports or URLs, separated by commas.
    pub fn new(endpoints: &str, tls: Option<&Tls>) -> Result<Client, Error> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut channels = Vec::new();
        for text in endpoints
            .split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
        {
            let bare = text.split_once("://").map_or(text, |(_, bare)| bare);
            let wrong = |error: tonic::transport::Error| {
                let text = outrider_kit::error::chain(&error);
                Error::invalid(format!("initializing etcd client: {text}"))
            };
            let mut endpoint = Endpoint::from_shared(format!("{scheme}://{bare}"))
                .map_err(wrong)?
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(Duration::from_secs(30));
            if let Some(tls) = tls {
                let config = ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(&tls.authority))
                    .identity(Identity::from_pem(&tls.certificate, &tls.key.0));
                endpoint = endpoint.tls_config(config).map_err(wrong)?;
            }
            channels.push(endpoint.connect_lazy());
        }
        if channels.is_empty() {
            return Err(Error::invalid(
                "initializing etcd client: endpoints required",
            ));
        }
        Ok(Client {
            channels,
            current: AtomicUsize::new(0),
        })
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.read("/etcdserverpb.KV/Range", request).await
    }

    /// Writes are sent once: whether one that was not answered has happened is
    /// not known.
    pub async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.in_time(self.call("/etcdserverpb.KV/Txn", request))
            .await
    }

    /// What has a lease is deleted after `seconds`.
    pub async fn lease(&self, seconds: u32) -> Result<i64, Error> {
        let request = LeaseRequest {
            ttl: i64::from(seconds),
        };
        let answer: LeaseResponse = self.read("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(answer.id)
    }

    /// Asks the other servers too, where one does not answer.
    async fn read<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.in_time(async {
            let mut tries = self.channels.len();
            loop {
                tries -= 1;
                match self.call(path, request.clone()).await {
                    Err(error) if tries > 0 && error.kind() == Kind::Unavailable => {}
                    other => return other,
                }
            }
        })
        .await
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let at = self.current.load(Ordering::Relaxed);
        let channel = self.channels[at % self.channels.len()].clone();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
        let calling = async {
            grpc.ready()
                .await
                .map_err(|error| tonic::Status::unavailable(outrider_kit::error::chain(&error)))?;
            let codec = ProstCodec::<Q, A>::default();
            let path = PathAndQuery::from_static(path);
            grpc.unary(tonic::Request::new(request), path, codec).await
        };
        match calling.await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                let error = failed(status);
                if error.kind() == Kind::Unavailable {
                    // The next call asks the next server.
                    let next = at.wrapping_add(1);
                    let _ = self.current.compare_exchange(
                        at,
                        next,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                }
                Err(error)
            }
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable("context deadline exceeded")),
        }
    }
}

fn failed(status: tonic::Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind, status.message().to_owned()).because(status)
}
