//! An etcd in other processes.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use outrider_proto::etcd::etcdserverpb::auth_client::AuthClient;
use outrider_proto::etcd::etcdserverpb::kv_client::KvClient;
use outrider_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use outrider_proto::etcd::etcdserverpb::watch_client::WatchClient;
use outrider_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use outrider_proto::etcd::etcdserverpb::{
    AuthenticateRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use outrider_proto::etcd::mvccpb;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::{Change, Kv, end_of_prefix};

const CONNECT: Duration = Duration::from_secs(5);
/// For one request.
const REQUEST: Duration = Duration::from_secs(10);
const PING_AFTER: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// For an etcd that is starting, or has no leader yet.
const START: Duration = Duration::from_secs(60);
const START_PAUSE: Duration = Duration::from_millis(100);
/// Between two renewals of the token, which etcd forgets after minutes.
const TOKEN: Duration = Duration::from_secs(60);

/// The same while etcd asks nobody for one.
const NO_TOKEN: Duration = Duration::from_secs(1);
const AUTH_OFF: &str = "authentication is not enabled";

/// The token of a user, once there is one.
#[derive(Clone, Default)]
struct Token(Arc<RwLock<Option<MetadataValue<Ascii>>>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = self.0.read().unwrap_or_else(|error| error.into_inner());
        if let Some(token) = &*token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

type Line = InterceptedService<Channel, Token>;

/// Cloning shares the connections.
#[derive(Clone)]
pub struct Remote {
    channel: Channel,
    token: Token,
    user: Option<(String, String)>,
}

impl Remote {
    pub async fn connect(
        endpoints: &[String],
        user: Option<(String, String)>,
    ) -> Result<Self, Status> {
        let invalid = |error: tonic::transport::Error| {
            Status::invalid_argument(format!("the address of an etcd: {error}"))
        };
        let mut all = Vec::new();
        for endpoint in endpoints {
            let address = match endpoint.contains("://") {
                true => endpoint.clone(),
                false => format!("http://{endpoint}"),
            };
            let endpoint = Endpoint::from_shared(address).map_err(invalid)?;
            let endpoint = endpoint
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PING_TIMEOUT);
            all.push(endpoint);
        }
        let remote = Self {
            channel: Channel::balance_list(all.into_iter()),
            token: Token::default(),
            user,
        };
        remote.authenticate().await?;
        Ok(remote)
    }

    async fn authenticate(&self) -> Result<(), Status> {
        let Some((name, password)) = &self.user else {
            return Ok(());
        };
        let request = AuthenticateRequest {
            name: name.clone(),
            password: password.clone(),
        };
        let mut client = AuthClient::new(self.channel.clone());
        let answer = match in_time(client.authenticate(request)).await {
            // Until it is switched on, nobody has to be anybody.
            Err(status) if status.message().contains(AUTH_OFF) => return Ok(()),
            answered => answered?,
        };
        let token = answer.token.parse();
        let token = token.map_err(|_| Status::internal("etcd gave a token of wrong form"))?;
        let mut current = self.token.0.write().unwrap_or_else(|it| it.into_inner());
        *current = Some(token);
        Ok(())
    }

    /// Renews the token, for as long as that works.
    pub async fn keep_token(&self) -> Status {
        loop {
            let known = self.token.0.read().is_ok_and(|token| token.is_some());
            let pause = if known { TOKEN } else { NO_TOKEN };
            tokio::time::sleep(pause).await;
            if let Err(status) = self.authenticate().await {
                return status;
            }
        }
    }

    fn line(&self) -> Line {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }

    fn kv(&self) -> KvClient<Line> {
        KvClient::new(self.line())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    fn leases(&self) -> LeaseClient<Line> {
        LeaseClient::new(self.line())
    }

    /// The revision of now, as soon as there is an answer.
    pub async fn wait_until_it_answers(&self) -> Result<i64, Status> {
        let deadline = Instant::now() + START;
        loop {
            match self.revision().await {
                Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(START_PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    /// The revision of now.
    pub async fn revision(&self) -> Result<i64, Status> {
        let request = RangeRequest {
            key: b"dapr".to_vec().into(),
            ..RangeRequest::default()
        };
        let answer = self.range(request).await?;
        Ok(answer.header.map_or(0, |it| it.revision))
    }

    pub async fn grant(&self, ttl: Duration) -> Result<i64, Status> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl, id: 0 };
        Ok(in_time(self.leases().lease_grant(request)).await?.id)
    }

    pub async fn revoke(&self, id: i64) -> Result<(), Status> {
        let request = LeaseRevokeRequest { id };
        in_time(self.leases().lease_revoke(request)).await.map(drop)
    }

    /// Renews a lease every `period`, and returns when it is gone, or when no renewal
    /// was answered within `limit` of the one before.
    pub async fn keep_lease(&self, id: i64, period: Duration, limit: Duration) -> Status {
        let renewed = self.renew(id, period, limit).await;
        renewed
            .err()
            .unwrap_or_else(|| Status::not_found("the lease is over"))
    }

    async fn renew(&self, id: i64, period: Duration, limit: Duration) -> Result<(), Status> {
        // When the last renewal that was answered was sent; none before.
        let mut renewed = Instant::now();
        let (requests, receiver) = mpsc::channel(1);
        let ask = || LeaseKeepAliveRequest { id };
        let gone = |_| Status::unavailable("the stream of renewals ended");
        requests.send(ask()).await.map_err(|_| gone(()))?;
        let stream = ReceiverStream::new(receiver);
        let mut answers = in_time(self.leases().lease_keep_alive(stream)).await?;
        let mut sent = renewed;
        loop {
            let answer = tokio::time::timeout_at(renewed + limit, answers.message()).await;
            let answer = answer.map_err(|_| Status::deadline_exceeded("no renewal"))??;
            if answer.is_none_or(|it| it.ttl <= 0) {
                return Ok(());
            }
            renewed = sent;
            tokio::time::sleep(period).await;
            sent = Instant::now();
            requests.send(ask()).await.map_err(|_| gone(()))?;
        }
    }

    /// All changes of keys that begin with `prefix`, beginning with a revision.
    pub async fn watch(&self, prefix: &str, revision: i64) -> Result<Watching, Status> {
        let create = WatchCreateRequest {
            key: prefix.to_owned().into(),
            range_end: end_of_prefix(prefix.as_bytes()).into(),
            start_revision: revision,
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        // The stream of requests has to stay open.
        let (requests, receiver) = mpsc::channel(1);
        let closed = |_| Status::unavailable("the watch ended");
        requests.send(request).await.map_err(|_| closed(()))?;
        let mut client = WatchClient::new(self.line()).max_decoding_message_size(usize::MAX);
        let answers = in_time(client.watch(ReceiverStream::new(receiver))).await?;
        Ok(Watching {
            answers,
            _requests: requests,
        })
    }
}

/// Changes as etcd sees them.
pub struct Watching {
    answers: Streaming<WatchResponse>,
    _requests: mpsc::Sender<WatchRequest>,
}

impl Watching {
    /// Those that come next, together.
    pub async fn next(&mut self) -> Result<Vec<Change>, Status> {
        let answer = match self.answers.next().await {
            Some(answer) => answer?,
            None => return Err(Status::unavailable("the watch ended")),
        };
        if answer.canceled {
            let why = answer.cancel_reason;
            return Err(Status::unavailable(format!(
                "the watch was cancelled: {why}"
            )));
        }
        let changes = answer.events.into_iter().filter_map(|event| {
            let is_put = event.r#type() == mvccpb::event::EventType::Put;
            let kv = event.kv?;
            Some(match is_put {
                true => Change::Put(kv),
                false => Change::Delete {
                    revision: kv.mod_revision,
                    key: kv.key,
                },
            })
        });
        Ok(changes.collect())
    }
}

async fn in_time<T>(
    request: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded("etcd did not answer in time")),
    }
}

#[async_trait]
impl Kv for Remote {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        in_time(self.kv().range(request)).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        in_time(self.kv().txn(request)).await
    }
}
