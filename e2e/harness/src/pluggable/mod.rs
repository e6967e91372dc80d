//! A program that serves components on a unix socket.

mod bindings;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use outrider_proto::components::v1 as wire;
use reflection::server_reflection_response::MessageResponse;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tonic_reflection::pb::v1alpha as reflection;
use wire::input_binding_server::InputBindingServer;
use wire::output_binding_server::OutputBindingServer;
use wire::pub_sub_server::{PubSub, PubSubServer};
use wire::queriable_state_store_server::{QueriableStateStore, QueriableStateStoreServer};
use wire::secret_store_server::{SecretStore, SecretStoreServer};
use wire::state_store_server::{StateStore, StateStoreServer};
use wire::transactional_state_operation::Request as Step;
use wire::transactional_state_store_server::{
    TransactionalStateStore, TransactionalStateStoreServer,
};
use wire::transactional_store_multi_max_size_server::{
    TransactionalStoreMultiMaxSize, TransactionalStoreMultiMaxSizeServer,
};

type Answer<T> = Result<Response<T>, Status>;

fn done<T: Default>() -> Answer<T> {
    Ok(Response::new(T::default()))
}

/// How many operations fit into a transaction.
pub const MOST: i64 = 2;
const SERVICES: [&str; 8] = [
    "StateStore",
    "TransactionalStateStore",
    "TransactionalStoreMultiMaxSize",
    "QueriableStateStore",
    "PubSub",
    "SecretStore",
    "InputBinding",
    "OutputBinding",
];

/// A program with a state store, a broker, a secret store and a binding in memory, which
/// remembers how it was called.
pub struct Program {
    folder: TempDir,
    server: JoinSet<()>,
    memory: Arc<Memory>,
}

/// What a program did and is to do.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    items: HashMap<String, (Bytes, u64)>,
    writes: u64,
    /// Method and instance of every call.
    calls: Vec<(&'static str, String)>,
    properties: HashMap<String, String>,
    failures: HashMap<&'static str, Status>,
    published: Vec<wire::PublishRequest>,
    acknowledged: Arc<Mutex<Vec<wire::PullMessagesRequest>>>,
    subscribers: Vec<(
        wire::Topic,
        mpsc::Sender<Result<wire::PullMessagesResponse, Status>>,
    )>,
    pausable: bool,
    readers: Vec<mpsc::Sender<Result<wire::ReadResponse, Status>>>,
    verdicts: Arc<Mutex<Vec<wire::ReadRequest>>>,
    streams: JoinSet<()>,
}

impl Program {
    /// Serves everything on the socket `<name>.sock` of a folder of its own.
    pub async fn start(name: &str) -> Result<Program> {
        let mut program = Program {
            folder: tempfile::tempdir()?,
            server: JoinSet::new(),
            memory: Arc::default(),
        };
        program.serve(name)?;
        Ok(program)
    }

    fn serve(&mut self, name: &str) -> Result<()> {
        let socket = self.folder.path().join(format!("{name}.sock"));
        let listener = UnixListenerStream::new(UnixListener::bind(socket)?);
        let memory = &self.memory;
        let router = tonic::transport::Server::builder()
            .add_service(StateStoreServer::from_arc(memory.clone()))
            .add_service(TransactionalStateStoreServer::from_arc(memory.clone()))
            .add_service(TransactionalStoreMultiMaxSizeServer::from_arc(
                memory.clone(),
            ))
            .add_service(QueriableStateStoreServer::from_arc(memory.clone()))
            .add_service(PubSubServer::from_arc(memory.clone()))
            .add_service(SecretStoreServer::from_arc(memory.clone()))
            .add_service(InputBindingServer::from_arc(memory.clone()))
            .add_service(OutputBindingServer::from_arc(memory.clone()))
            .add_service(
                reflection::server_reflection_server::ServerReflectionServer::from_arc(
                    memory.clone(),
                ),
            );
        self.server.spawn(async move {
            let _ = router.serve_with_incoming(listener).await;
        });
        Ok(())
    }

    /// Ends the program and starts it again, with all that it remembers.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.server.shutdown().await;
        self.memory.inner().subscribers.clear();
        self.memory.inner().readers.clear();
        self.memory.inner().streams.abort_all();
        std::fs::remove_file(self.folder.path().join(format!("{name}.sock")))?;
        self.serve(name)
    }

    /// Where the socket is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every further call of the method fails.
    pub fn fail(&self, method: &'static str, status: Status) {
        self.inner().failures.insert(method, status);
    }

    /// `Pause` works from now on.
    pub fn let_pause(&self) {
        self.inner().pausable = true;
    }

    /// The instances for which the method was called.
    pub fn calls(&self, method: &str) -> Vec<String> {
        let inner = self.inner();
        let calls = inner.calls.iter().filter(|(called, _)| *called == method);
        calls.map(|(_, instance)| instance.clone()).collect()
    }

    /// The properties of the latest `Init`.
    pub fn properties(&self) -> HashMap<String, String> {
        self.inner().properties.clone()
    }

    pub fn published(&self) -> Vec<wire::PublishRequest> {
        self.inner().published.clone()
    }

    pub fn acknowledged(&self) -> Vec<wire::PullMessagesRequest> {
        let acknowledged = self.acknowledgements();
        let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.clone()
    }

    fn acknowledgements(&self) -> Arc<Mutex<Vec<wire::PullMessagesRequest>>> {
        self.inner().acknowledged.clone()
    }

    pub fn topics(&self) -> Vec<String> {
        let inner = self.inner();
        let alive = inner.subscribers.iter().filter(|(_, s)| !s.is_closed());
        alive.map(|(topic, _)| topic.name.clone()).collect()
    }

    /// Sends a message to the subscriber of its topic.
    pub async fn deliver(&self, message: wire::PullMessagesResponse) -> Result<()> {
        let subscribers: Vec<_> = {
            let inner = self.inner();
            let of_topic = inner
                .subscribers
                .iter()
                .filter(|(topic, _)| topic.name == message.topic_name);
            of_topic.map(|(_, sender)| sender.clone()).collect()
        };
        for subscriber in subscribers {
            subscriber.send(Ok(message.clone())).await?;
        }
        Ok(())
    }

    /// Records a call, and fails it if the test wants that.
    fn called(&self, method: &'static str, metadata: &MetadataMap) -> Result<(), Status> {
        let instance = metadata.get("x-component-instance");
        let instance = instance.and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut inner = self.inner();
        inner.calls.push((method, instance.to_owned()));
        match inner.failures.get(method) {
            None => Ok(()),
            Some(status) => Err(status.clone()),
        }
    }

    fn init(&self, metadata: Option<wire::MetadataRequest>) {
        self.inner().properties = metadata.unwrap_or_default().properties;
    }

    fn put(&self, request: wire::SetRequest) {
        let mut inner = self.inner();
        inner.writes += 1;
        let item = (request.value, inner.writes);
        inner.items.insert(request.key, item);
    }

    fn find(&self, key: &str) -> Option<(Bytes, wire::Etag)> {
        let inner = self.inner();
        let (value, version) = inner.items.get(key)?;
        let etag = wire::Etag {
            value: version.to_string(),
        };
        Some((value.clone(), etag))
    }
}

#[tonic::async_trait]
impl StateStore for Memory {
    async fn init(&self, request: Request<wire::InitRequest>) -> Answer<wire::InitResponse> {
        self.called("Init", request.metadata())?;
        Memory::init(self, request.into_inner().metadata);
        done()
    }

    async fn features(&self, _: Request<wire::FeaturesRequest>) -> Answer<wire::FeaturesResponse> {
        let features = ["ETAG", "TRANSACTIONAL"].map(str::to_owned).into();
        Ok(Response::new(wire::FeaturesResponse { features }))
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Answer<wire::GetResponse> {
        self.called("Get", request.metadata())?;
        let mut answer = wire::GetResponse::default();
        if let Some((data, etag)) = self.find(&request.get_ref().key) {
            answer.data = data;
            answer.etag = Some(etag);
        }
        Ok(Response::new(answer))
    }

    async fn set(&self, request: Request<wire::SetRequest>) -> Answer<wire::SetResponse> {
        self.called("Set", request.metadata())?;
        self.put(request.into_inner());
        done()
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::DeleteResponse> {
        self.called("Delete", request.metadata())?;
        self.inner().items.remove(&request.get_ref().key);
        done()
    }

    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        done()
    }

    async fn bulk_get(
        &self,
        request: Request<wire::BulkGetRequest>,
    ) -> Answer<wire::BulkGetResponse> {
        self.called("BulkGet", request.metadata())?;
        let items = request.into_inner().items.into_iter().map(|one| {
            let (data, etag) = self.find(&one.key).unzip();
            wire::BulkStateItem {
                key: one.key,
                data: data.unwrap_or_default(),
                etag,
                ..Default::default()
            }
        });
        let items = items.collect();
        Ok(Response::new(wire::BulkGetResponse { items }))
    }

    async fn bulk_set(
        &self,
        request: Request<wire::BulkSetRequest>,
    ) -> Answer<wire::BulkSetResponse> {
        self.called("BulkSet", request.metadata())?;
        for one in request.into_inner().items {
            self.put(one);
        }
        done()
    }

    async fn bulk_delete(
        &self,
        request: Request<wire::BulkDeleteRequest>,
    ) -> Answer<wire::BulkDeleteResponse> {
        self.called("BulkDelete", request.metadata())?;
        for one in request.into_inner().items {
            self.inner().items.remove(&one.key);
        }
        done()
    }
}

#[tonic::async_trait]
impl TransactionalStateStore for Memory {
    async fn transact(
        &self,
        request: Request<wire::TransactionalStateRequest>,
    ) -> Answer<wire::TransactionalStateResponse> {
        self.called("Transact", request.metadata())?;
        for operation in request.into_inner().operations {
            match operation.request {
                Some(Step::Set(request)) => self.put(request),
                Some(Step::Delete(request)) => {
                    self.inner().items.remove(&request.key);
                }
                None => return Err(Status::invalid_argument("an operation without a request")),
            }
        }
        done()
    }
}

#[tonic::async_trait]
impl TransactionalStoreMultiMaxSize for Memory {
    async fn multi_max_size(
        &self,
        _: Request<wire::MultiMaxSizeRequest>,
    ) -> Answer<wire::MultiMaxSizeResponse> {
        let max_size = MOST;
        Ok(Response::new(wire::MultiMaxSizeResponse { max_size }))
    }
}

/// Finds the items whose value is the operand of `EQ`, whatever the property.
#[tonic::async_trait]
impl QueriableStateStore for Memory {
    async fn query(&self, request: Request<wire::QueryRequest>) -> Answer<wire::QueryResponse> {
        self.called("Query", request.metadata())?;
        let query = request.into_inner().query.unwrap_or_default();
        let operand = query.filter.get("EQ");
        let operand = operand.ok_or_else(|| Status::unimplemented("only EQ"))?;
        let wanted: HashMap<String, serde_json::Value> = serde_json::from_slice(&operand.value)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let inner = self.inner();
        let mut items: Vec<_> = inner
            .items
            .iter()
            .filter(|(_, (data, _))| {
                wanted
                    .values()
                    .any(|w| w.to_string().as_bytes() == &data[..])
            })
            .map(|(key, (data, version))| wire::QueryItem {
                key: key.clone(),
                data: data.clone(),
                etag: Some(wire::Etag {
                    value: version.to_string(),
                }),
                ..Default::default()
            })
            .collect();
        items.sort_by(|a, b| a.key.cmp(&b.key));
        let limit = query.pagination.map_or(0, |page| page.limit);
        let token = (limit > 0 && items.len() as i64 > limit).then(|| limit.to_string());
        if limit > 0 {
            items.truncate(limit as usize);
        }
        Ok(Response::new(wire::QueryResponse {
            items,
            token: token.unwrap_or_default(),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl PubSub for Memory {
    async fn init(
        &self,
        request: Request<wire::PubSubInitRequest>,
    ) -> Answer<wire::PubSubInitResponse> {
        self.called("PubSubInit", request.metadata())?;
        done()
    }

    async fn features(&self, _: Request<wire::FeaturesRequest>) -> Answer<wire::FeaturesResponse> {
        done()
    }

    async fn publish(
        &self,
        request: Request<wire::PublishRequest>,
    ) -> Answer<wire::PublishResponse> {
        self.called("Publish", request.metadata())?;
        self.inner().published.push(request.into_inner());
        done()
    }

    async fn bulk_publish(
        &self,
        request: Request<wire::BulkPublishRequest>,
    ) -> Answer<wire::BulkPublishResponse> {
        self.called("BulkPublish", request.metadata())?;
        let failed = request.into_inner().entries.into_iter().filter_map(|e| {
            let refused = e.event.windows(6).any(|word| word == b"refuse");
            refused.then(|| wire::BulkPublishResponseFailedEntry {
                entry_id: e.entry_id,
                error: "refused".to_owned(),
            })
        });
        let failed_entries = failed.collect();
        Ok(Response::new(wire::BulkPublishResponse { failed_entries }))
    }

    async fn pull_messages(
        &self,
        request: Request<Streaming<wire::PullMessagesRequest>>,
    ) -> Answer<BoxStream<wire::PullMessagesResponse>> {
        self.called("PullMessages", request.metadata())?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.topic);
        let topic = first.ok_or_else(|| Status::invalid_argument("no topic"))?;
        let (sender, mut messages) = mpsc::channel(16);
        self.inner().subscribers.push((topic, sender));
        // Acknowledgements come on the same stream; it is read for as long as
        // the other half is open.
        let (relay, relayed) = mpsc::channel(16);
        let memory = self.acknowledgements();
        self.inner().streams.spawn(async move {
            loop {
                tokio::select! {
                    message = messages.recv() => match message {
                        Some(message) => if relay.send(message).await.is_err() { return },
                        None => return,
                    },
                    acknowledged = requests.message() => match acknowledged {
                        Ok(Some(acknowledged)) => memory.lock().unwrap_or_else(PoisonError::into_inner).push(acknowledged),
                        _ => return,
                    },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(relayed))))
    }

    async fn pause(&self, request: Request<wire::PauseRequest>) -> Answer<wire::PauseResponse> {
        self.called("Pause", request.metadata())?;
        if self.inner().pausable {
            done()
        } else {
            Err(Status::unimplemented("it goes on"))
        }
    }

    async fn resume(&self, _: Request<wire::ResumeRequest>) -> Answer<wire::ResumeResponse> {
        done()
    }

    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        done()
    }
}

#[tonic::async_trait]
impl SecretStore for Memory {
    async fn init(
        &self,
        request: Request<wire::SecretStoreInitRequest>,
    ) -> Answer<wire::SecretStoreInitResponse> {
        self.called("SecretInit", request.metadata())?;
        done()
    }

    async fn features(&self, _: Request<wire::FeaturesRequest>) -> Answer<wire::FeaturesResponse> {
        done()
    }

    /// Every secret is its own name.
    async fn get(
        &self,
        request: Request<wire::GetSecretRequest>,
    ) -> Answer<wire::GetSecretResponse> {
        self.called("GetSecret", request.metadata())?;
        let key = request.into_inner().key;
        let data = HashMap::from([(key.clone(), key)]);
        Ok(Response::new(wire::GetSecretResponse { data }))
    }

    async fn bulk_get(
        &self,
        request: Request<wire::BulkGetSecretRequest>,
    ) -> Answer<wire::BulkGetSecretResponse> {
        self.called("BulkGetSecret", request.metadata())?;
        let secrets = HashMap::from([("key".to_owned(), "value".to_owned())]);
        let data = HashMap::from([("all".to_owned(), wire::SecretResponse { secrets })]);
        Ok(Response::new(wire::BulkGetSecretResponse { data }))
    }

    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        done()
    }
}

#[tonic::async_trait]
impl reflection::server_reflection_server::ServerReflection for Memory {
    type ServerReflectionInfoStream =
        ReceiverStream<Result<reflection::ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<reflection::ServerReflectionRequest>>,
    ) -> Answer<Self::ServerReflectionInfoStream> {
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(1);
        if requests.message().await?.is_some() {
            let name = |service| format!("dapr.proto.components.v1.{service}");
            let service = SERVICES.map(|s| reflection::ServiceResponse { name: name(s) });
            let list = reflection::ListServiceResponse {
                service: service.into(),
            };
            let answer = reflection::ServerReflectionResponse {
                message_response: Some(MessageResponse::ListServicesResponse(list)),
                ..Default::default()
            };
            let _ = answers.send(Ok(answer)).await;
        }
        Ok(Response::new(stream.into()))
    }
}
