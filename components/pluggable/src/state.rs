//! State stores that other programs serve.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::state::{
    BulkError, BulkItem, Concurrency, Consistency, DeleteRequest, Feature, GetRequest, Item, Match,
    Matches, Operation, Query, SetRequest, Store, Value,
};
use outrider_components::{Error, Metadata, Pairs};
use outrider_proto::Any;
use outrider_proto::components::v1 as wire;
use tokio::sync::OnceCell;
use wire::queriable_state_store_client::QueriableStateStoreClient;
use wire::state_options::{StateConcurrency, StateConsistency};
use wire::state_store_client::StateStoreClient;
use wire::transactional_state_operation::Request as Step;
use wire::transactional_state_store_client::TransactionalStateStoreClient;
use wire::transactional_store_multi_max_size_client::TransactionalStoreMultiMaxSizeClient;

use crate::connection::{self, Connection};
use crate::error::{check, from_bulk_delete, from_status};

const SCOPE: &str = "state-pluggable-logger";
/// How long the store may take to return the size limit of transactions.
const MAX_SIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// The optional gRPC services that the program has.
#[derive(Debug, Clone, Copy)]
pub struct OptionalServices {
    pub queries: bool,
    /// The size limit of transactions.
    pub max_size: bool,
}

struct Remote {
    client: StateStoreClient<Connection>,
    transactions: TransactionalStateStoreClient<Connection>,
    queries: Option<QueriableStateStoreClient<Connection>>,
    features: Vec<Feature>,
    /// The size limit of transactions, read at first use.
    max_size: Option<(
        TransactionalStoreMultiMaxSizeClient<Connection>,
        OnceCell<Option<usize>>,
    )>,
}

pub async fn connect(
    socket: Arc<Path>,
    services: OptionalServices,
    metadata: Metadata,
) -> Result<Arc<dyn Store>, Error> {
    let connection = connection::open(&socket, metadata.component()).await?;
    let mut client =
        StateStoreClient::new(connection.clone()).max_decoding_message_size(usize::MAX);
    let metadata = Some(connection::properties(&metadata));
    let init = wire::InitRequest { metadata };
    check(client.init(init).await)?;
    let reported = client.features(wire::FeaturesRequest {}).await;
    let features = connection::features(reported, Feature::named)?;
    let max_size = TransactionalStoreMultiMaxSizeClient::new(connection.clone());
    let queries = QueriableStateStoreClient::new(connection.clone());
    Ok(Arc::new(Remote {
        client,
        transactions: TransactionalStateStoreClient::new(connection),
        queries: services
            .queries
            .then(|| queries.max_decoding_message_size(usize::MAX)),
        features,
        max_size: services.max_size.then(|| (max_size, OnceCell::new())),
    }))
}

async fn max_size(mut client: TransactionalStoreMultiMaxSizeClient<Connection>) -> Option<usize> {
    let asking = client.multi_max_size(wire::MultiMaxSizeRequest {});
    match tokio::time::timeout(MAX_SIZE_TIMEOUT, asking).await {
        // Below 1 means that there is no limit.
        Ok(Ok(answer)) => usize::try_from(answer.into_inner().max_size)
            .ok()
            .filter(|size| *size > 0),
        Ok(Err(status)) => {
            let cause = from_status(status);
            tracing::error!(target: SCOPE, "failed to get multi max size from state store: {cause}");
            None
        }
        Err(_) => {
            tracing::error!(target: SCOPE, "failed to get multi max size from state store: no answer within {}s", MAX_SIZE_TIMEOUT.as_secs());
            None
        }
    }
}

#[async_trait]
impl Store for Remote {
    fn features(&self) -> &[Feature] {
        &self.features
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        let answer = self.client.clone().get(get(request)).await;
        let answer = answer.map_err(from_status)?.into_inner();
        Ok(item(
            answer.data,
            answer.etag,
            answer.metadata,
            answer.content_type,
        ))
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        check(self.client.clone().set(set(request)?).await)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        check(self.client.clone().delete(delete(request)).await)
    }

    async fn bulk_get(
        &self,
        requests: &[GetRequest],
        parallelism: usize,
    ) -> Result<Vec<BulkItem>, Error> {
        let parallelism = number(parallelism);
        let request = wire::BulkGetRequest {
            items: requests.iter().map(get).collect(),
            options: Some(wire::BulkGetRequestOptions { parallelism }),
        };
        let answer = self.client.clone().bulk_get(request).await;
        let items = answer.map_err(from_status)?.into_inner().items;
        Ok(items
            .into_iter()
            .map(|found| BulkItem {
                key: found.key,
                result: if found.error.is_empty() {
                    Ok(item(
                        found.data,
                        found.etag,
                        found.metadata,
                        found.content_type,
                    ))
                } else {
                    Err(Error::internal(found.error))
                },
            })
            .collect())
    }

    async fn bulk_set(&self, requests: &[SetRequest], parallelism: usize) -> Result<(), BulkError> {
        let items = requests.iter().map(set).collect::<Result<_, _>>()?;
        let parallelism = number(parallelism);
        let request = wire::BulkSetRequest {
            items,
            options: Some(wire::BulkSetRequestOptions { parallelism }),
        };
        let answer = self.client.clone().bulk_set(request).await;
        answer.map(drop).map_err(|s| from_status(s).into())
    }

    async fn bulk_delete(
        &self,
        requests: &[DeleteRequest],
        parallelism: usize,
    ) -> Result<(), BulkError> {
        let parallelism = number(parallelism);
        let request = wire::BulkDeleteRequest {
            items: requests.iter().map(delete).collect(),
            options: Some(wire::BulkDeleteRequestOptions { parallelism }),
        };
        let answer = self.client.clone().bulk_delete(request).await;
        answer.map(drop).map_err(|s| from_bulk_delete(s).into())
    }

    async fn transact(&self, operations: &[Operation], metadata: &Pairs) -> Result<(), Error> {
        let step = |operation: &Operation| {
            let request = Some(match operation {
                Operation::Upsert(request) => Step::Set(set(request)?),
                Operation::Delete(request) => Step::Delete(delete(request)),
            });
            Ok(wire::TransactionalStateOperation { request })
        };
        let request = wire::TransactionalStateRequest {
            operations: operations.iter().map(step).collect::<Result<_, Error>>()?,
            metadata: metadata.clone(),
        };
        check(self.transactions.clone().transact(request).await)
    }

    async fn max_operations(&self) -> Option<usize> {
        let (client, known) = self.max_size.as_ref()?;
        *known.get_or_init(|| max_size(client.clone())).await
    }

    fn can_query(&self) -> bool {
        self.queries.is_some()
    }

    async fn query(&self, query: &Query) -> Result<Matches, Error> {
        let Some(client) = &self.queries else {
            return Err(Error::unsupported("the state store cannot be searched"));
        };
        let answer = client.clone().query(search(query)).await;
        let answer = answer.map_err(from_status)?.into_inner();
        let items = answer.items.into_iter().map(|item| Match {
            key: item.key,
            value: item.data,
            etag: item.etag.map(|etag| etag.value),
            error: item.error,
        });
        Ok(Matches {
            items: items.collect(),
            token: answer.token,
            metadata: answer.metadata,
        })
    }

    async fn ping(&self) -> Result<(), Error> {
        check(self.client.clone().ping(wire::PingRequest {}).await)
    }
}

fn number(parallelism: usize) -> i64 {
    i64::try_from(parallelism).unwrap_or(i64::MAX)
}

/// The protocol returns an empty item where there is none.
fn item(
    value: bytes::Bytes,
    etag: Option<wire::Etag>,
    metadata: Pairs,
    content_type: String,
) -> Option<Item> {
    if value.is_empty() && etag.is_none() && metadata.is_empty() {
        return None;
    }
    Some(Item {
        value,
        etag: etag.map(|etag| etag.value),
        metadata,
        content_type: (!content_type.is_empty()).then_some(content_type),
    })
}

fn get(request: &GetRequest) -> wire::GetRequest {
    wire::GetRequest {
        key: request.key.clone(),
        metadata: request.metadata.clone(),
        consistency: consistency(request.consistency).into(),
    }
}

fn set(request: &SetRequest) -> Result<wire::SetRequest, Error> {
    if matches!(&request.value, Value::Json(json) if &json[..] == b"null") {
        return Err(Error::invalid(
            "an attempt to set a nil value was received, try to use Delete instead",
        ));
    }
    Ok(wire::SetRequest {
        key: request.key.clone(),
        value: request.value.bytes().clone(),
        etag: etag(request.etag.as_ref()),
        metadata: request.metadata.clone(),
        options: options(request.concurrency, request.consistency),
        content_type: request.content_type.clone().unwrap_or_default(),
    })
}

fn delete(request: &DeleteRequest) -> wire::DeleteRequest {
    wire::DeleteRequest {
        key: request.key.clone(),
        etag: etag(request.etag.as_ref()),
        metadata: request.metadata.clone(),
        options: options(request.concurrency, request.consistency),
    }
}

fn etag(etag: Option<&String>) -> Option<wire::Etag> {
    let value = etag.cloned()?;
    Some(wire::Etag { value })
}

fn options(concurrency: Concurrency, wanted: Consistency) -> Option<wire::StateOptions> {
    let concurrency = match concurrency {
        Concurrency::Unspecified => StateConcurrency::ConcurrencyUnspecified,
        Concurrency::FirstWrite => StateConcurrency::ConcurrencyFirstWrite,
        Concurrency::LastWrite => StateConcurrency::ConcurrencyLastWrite,
    };
    Some(wire::StateOptions {
        concurrency: concurrency.into(),
        consistency: consistency(wanted).into(),
    })
}

fn consistency(wanted: Consistency) -> StateConsistency {
    match wanted {
        Consistency::Unspecified => StateConsistency::ConsistencyUnspecified,
        Consistency::Eventual => StateConsistency::ConsistencyEventual,
        Consistency::Strong => StateConsistency::ConsistencyStrong,
    }
}

fn search(query: &Query) -> wire::QueryRequest {
    let filter = query.filter.iter().map(|(operator, operand)| {
        let any = Any {
            type_url: String::new(),
            value: operand.to_string().into_bytes(),
        };
        (operator.clone(), any)
    });
    let sort = query.sort.iter().map(|by| wire::Sorting {
        key: by.key.clone(),
        order: match by.order.as_str() {
            "DESC" => wire::sorting::Order::Desc.into(),
            _ => wire::sorting::Order::Asc.into(),
        },
    });
    wire::QueryRequest {
        query: Some(wire::Query {
            filter: filter.collect(),
            sort: sort.collect(),
            pagination: Some(wire::Pagination {
                limit: query.page.limit,
                token: query.page.token.clone(),
            }),
        }),
        metadata: query.metadata.clone(),
    }
}
