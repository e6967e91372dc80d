//! State stores of other programs.

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

use crate::error::{done, of, of_bulk_delete};
use crate::link::{self, Link};

const SCOPE: &str = "state-pluggable-logger";
/// How long the store may take to say how many operations fit into a
/// transaction.
const LIMIT_ASKED: Duration = Duration::from_secs(5);

/// What the program serves beside the store itself.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    pub queries: bool,
    /// It tells how many operations fit into a transaction.
    pub limit: bool,
}

struct Remote {
    client: StateStoreClient<Link>,
    transactions: TransactionalStateStoreClient<Link>,
    queries: Option<QueriableStateStoreClient<Link>>,
    features: Vec<Feature>,
    /// Asked once, when it is needed first; absent where nobody tells.
    limit: Option<(
        TransactionalStoreMultiMaxSizeClient<Link>,
        OnceCell<Option<usize>>,
    )>,
}

pub async fn connect(
    socket: Arc<Path>,
    offers: Offers,
    metadata: Metadata,
) -> Result<Arc<dyn Store>, Error> {
    let link = link::open(&socket, metadata.component()).await?;
    let mut client = StateStoreClient::new(link.clone()).max_decoding_message_size(usize::MAX);
    let metadata = Some(link::properties(&metadata));
    let init = wire::InitRequest { metadata };
    done(client.init(init).await)?;
    let said = client.features(wire::FeaturesRequest {}).await;
    let features = link::features(said, Feature::named)?;
    let limit = TransactionalStoreMultiMaxSizeClient::new(link.clone());
    let queries = QueriableStateStoreClient::new(link.clone());
    Ok(Arc::new(Remote {
        client,
        transactions: TransactionalStateStoreClient::new(link),
        queries: offers
            .queries
            .then(|| queries.max_decoding_message_size(usize::MAX)),
        features,
        limit: offers.limit.then(|| (limit, OnceCell::new())),
    }))
}

async fn most(mut client: TransactionalStoreMultiMaxSizeClient<Link>) -> Option<usize> {
    let asking = client.multi_max_size(wire::MultiMaxSizeRequest {});
    match tokio::time::timeout(LIMIT_ASKED, asking).await {
        // Below 1 means that there is no limit.
        Ok(Ok(answer)) => usize::try_from(answer.into_inner().max_size)
            .ok()
            .filter(|most| *most > 0),
        Ok(Err(status)) => {
            let cause = of(status);
            tracing::error!(target: SCOPE, "failed to get multi max size from state store: {cause}");
            None
        }
        Err(_) => {
            tracing::error!(target: SCOPE, "failed to get multi max size from state store: no answer within {}s", LIMIT_ASKED.as_secs());
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
        let answer = answer.map_err(of)?.into_inner();
        Ok(item(
            answer.data,
            answer.etag,
            answer.metadata,
            answer.content_type,
        ))
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        done(self.client.clone().set(set(request)?).await)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        done(self.client.clone().delete(delete(request)).await)
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
        let items = answer.map_err(of)?.into_inner().items;
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
        answer.map(drop).map_err(|s| of(s).into())
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
        answer.map(drop).map_err(|s| of_bulk_delete(s).into())
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
        done(self.transactions.clone().transact(request).await)
    }

    async fn max_operations(&self) -> Option<usize> {
        let (client, known) = self.limit.as_ref()?;
        *known.get_or_init(|| most(client.clone())).await
    }

    fn can_query(&self) -> bool {
        self.queries.is_some()
    }

    async fn query(&self, query: &Query) -> Result<Matches, Error> {
        let Some(client) = &self.queries else {
            return Err(Error::unsupported("the state store cannot be searched"));
        };
        let answer = client.clone().query(search(query)).await;
        let answer = answer.map_err(of)?.into_inner();
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
        done(self.client.clone().ping(wire::PingRequest {}).await)
    }
}

fn number(parallelism: usize) -> i64 {
    i64::try_from(parallelism).unwrap_or(i64::MAX)
}

/// Absence has no sign of its own on the wire: it is an item without anything.
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
