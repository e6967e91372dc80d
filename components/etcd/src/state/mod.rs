//! State stores on etcd. The two versions differ in their values.

pub mod v1;
pub mod v2;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::state::{
    Concurrency, DeleteRequest, Feature, GetRequest, Item, KeysLikePage, KeysLikeRequest,
    Operation, SetRequest, Store,
};
use outrider_components::{Error, Field, Metadata, Pairs, Secret, Truthy};

use crate::api::{self, Compare, PutRequest, RangeRequest, Request, Target, TxnRequest};
use crate::client::{Client, Tls};
use crate::like;
use crate::value::Schema;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const ASCENDING: i32 = 1;
const BY_CREATION: i32 = 2;
const CREATED: i32 = 1;
const WRITTEN: i32 = 2;

outrider_components::fields! {
    struct Fields {
        /// Hosts with their ports, separated by commas.
        "endpoints" => endpoints: String, missing "initializing etcd client: endpoints required";
        /// What all keys start with, before a slash.
        "keyPrefixPath" => prefix: Option<String>;
        /// Whether connections use TLS. Needs the three below.
        "tlsEnable" => tls: Truthy = "false";
        /// Certificates that sign those of the servers, in PEM.
        "ca" => authority: Option<String>;
        /// Client certificate, in PEM.
        "cert" => certificate: Option<String>;
        /// Key of the client certificate, in PEM.
        "key" => key: Option<Secret>;
        /// Operations in one transaction.
        "maxTxnOps" => max_operations: u32 = "128";
    }
}

struct Etcd {
    client: Client,
    schema: Schema,
    /// With the slash.
    prefix: String,
    max_operations: usize,
}

async fn connect(metadata: &Metadata, schema: Schema) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(metadata)?;
    let tls = match (
        fields.tls.0,
        fields.authority,
        fields.certificate,
        fields.key,
    ) {
        (false, ..) => None,
        (true, Some(authority), Some(certificate), Some(key)) => Some(Tls {
            authority,
            certificate,
            key,
        }),
        _ => {
            return Err(Error::invalid(
                "initializing etcd client: tls authentication information is incomplete",
            ));
        }
    };
    let etcd = Etcd {
        client: Client::new(&fields.endpoints, tls.as_ref())?,
        schema,
        prefix: format!("{}/", fields.prefix.unwrap_or_default()),
        max_operations: usize::try_from(fields.max_operations).unwrap_or(usize::MAX),
    };
    etcd.ping().await?;
    Ok(Arc::new(etcd))
}

/// Operations that happen if all conditions hold.
#[derive(Default)]
struct Batch {
    compare: Vec<Compare>,
    /// What an etag has to be, by key; `None` where nothing may be there.
    wanted: Vec<(String, Option<String>)>,
    /// The last operation on each key, which is all that is left of several.
    operations: Vec<(String, Request)>,
}

impl Batch {
    fn condition(&mut self, key: &str, etag: Option<&str>) -> Result<(), Error> {
        let (target, union) = match etag {
            None => (CREATED, Target::CreateRevision(0)),
            Some(etag) => {
                let revision = etag.parse().map_err(|_| {
                    Error::etag_mismatch(&format!(
                        "state etag not match for key={key}: expect={etag}"
                    ))
                })?;
                (WRITTEN, Target::ModRevision(revision))
            }
        };
        self.compare.push(Compare {
            result: 0,
            target,
            key: key.as_bytes().to_vec(),
            union: Some(union),
        });
        self.wanted.push((key.to_owned(), etag.map(str::to_owned)));
        Ok(())
    }

    fn operation(&mut self, key: String, request: Request) {
        self.operations.retain(|(other, _)| *other != key);
        self.operations.push((key, request));
    }
}

fn one(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.as_bytes().to_vec(),
        ..RangeRequest::default()
    }
}

fn operation(request: Request) -> api::Operation {
    api::Operation {
        request: Some(request),
    }
}

impl Etcd {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn set_in(&self, batch: &mut Batch, request: &SetRequest) -> Result<(), Error> {
        let seconds = request.ttl()?.filter(|seconds| *seconds > 0);
        let key = self.key(&request.key);
        match (request.etag(), request.concurrency) {
            (Some(etag), _) => batch.condition(&key, Some(etag))?,
            (None, Concurrency::FirstWrite) => batch.condition(&key, None)?,
            (None, _) => {}
        }
        let lease = match seconds {
            None => 0,
            Some(seconds) => self
                .client
                .lease(seconds)
                .await
                .map_err(|error| error.context(&format!("couldn't grant lease {key}")))?,
        };
        let put = PutRequest {
            key: key.as_bytes().to_vec(),
            value: self.schema.encode(request.value.bytes(), seconds),
            lease,
        };
        batch.operation(key, Request::Put(put));
        Ok(())
    }

    fn delete_in(&self, batch: &mut Batch, request: &DeleteRequest) -> Result<(), Error> {
        let key = self.key(&request.key);
        if let Some(etag) = request.etag() {
            batch.condition(&key, Some(etag))?;
        }
        let delete = api::DeleteRequest {
            key: key.as_bytes().to_vec(),
        };
        batch.operation(key, Request::Delete(delete));
        Ok(())
    }

    async fn commit(&self, batch: Batch) -> Result<(), Error> {
        let success = batch.operations.into_iter();
        let keys = batch.wanted.iter();
        let request = TxnRequest {
            compare: batch.compare,
            success: success.map(|(_, request)| operation(request)).collect(),
            failure: keys
                .map(|(key, _)| operation(Request::Range(one(key))))
                .collect(),
        };
        let answer = self.client.transact(request).await?;
        if answer.succeeded {
            return Ok(());
        }
        let found = answer.responses.iter().map(|answer| {
            let kvs = answer.range.as_ref().and_then(|range| range.kvs.first());
            kvs.map(|kv| kv.mod_revision.to_string())
        });
        let mut wrong = batch.wanted.iter().zip(found);
        let detail = wrong.find_map(|((key, wanted), found)| match (wanted, found) {
            (None, Some(_)) => Some("item already exists and no etag was passed".to_owned()),
            (Some(_), None) => Some(format!("state not exist or expired for key={key}")),
            (Some(wanted), Some(found)) if *wanted != found => Some(format!(
                "state etag not match for key={key}: current={found}, expect={wanted}"
            )),
            _ => None,
        });
        Err(Error::etag_mismatch(&detail.unwrap_or_default()))
    }
}

#[async_trait]
impl Store for Etcd {
    fn features(&self) -> &[Feature] {
        &[
            Feature::Etag,
            Feature::Transactional,
            Feature::Ttl,
            Feature::KeysLike,
        ]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        let key = self.key(&request.key);
        let answer = self.client.range(one(&key)).await;
        let answer = answer.map_err(|error| error.context(&format!("couldn't get key {key}")))?;
        let Some(kv) = answer.kvs.into_iter().next() else {
            return Ok(None);
        };
        let (value, metadata) = self.schema.decode(kv.value)?;
        Ok(Some(Item {
            value,
            etag: Some(kv.mod_revision.to_string()),
            metadata,
            content_type: None,
        }))
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        let mut batch = Batch::default();
        self.set_in(&mut batch, request).await?;
        self.commit(batch).await.map_err(|error| {
            if error.is_etag() {
                return error;
            }
            error.context(&format!("couldn't set key {}", self.key(&request.key)))
        })
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        let mut batch = Batch::default();
        self.delete_in(&mut batch, request)?;
        self.commit(batch).await.map_err(|error| {
            if error.is_etag() {
                return error;
            }
            error.context(&format!("couldn't delete key {}", self.key(&request.key)))
        })
    }

    async fn transact(&self, operations: &[Operation], _: &Pairs) -> Result<(), Error> {
        if operations.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for operation in operations {
            match operation {
                Operation::Upsert(request) => self.set_in(&mut batch, request).await?,
                Operation::Delete(request) => self.delete_in(&mut batch, request)?,
            }
        }
        self.commit(batch).await
    }

    async fn max_operations(&self) -> Option<usize> {
        Some(self.max_operations)
    }

    /// In the order in which they were made. The continuation is the revision
    /// of the first page, and the one in which its last key was made.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        let pattern = request.pattern()?;
        let invalid = || Error::invalid("invalid continue token");
        let given = request
            .continuation
            .as_deref()
            .filter(|text| !text.is_empty());
        let (revision, after) = match given {
            None => (0, 0),
            Some(text) => {
                let (revision, after) = text.split_once(':').ok_or_else(invalid)?;
                (
                    revision.parse::<i64>().map_err(|_| invalid())?,
                    after.parse::<i64>().map_err(|_| invalid())?,
                )
            }
        };
        let prefix = self.key(&like::prefix(pattern));
        let answer = self
            .client
            .range(RangeRequest {
                range_end: end_of(prefix.as_bytes()),
                key: prefix.into_bytes(),
                revision,
                sort_order: ASCENDING,
                sort_target: BY_CREATION,
                keys_only: true,
            })
            .await?;
        let read_at = answer.header.map_or(0, |header| header.revision);
        let revision = if revision == 0 { read_at } else { revision };
        let size = request.page_size.filter(|size| *size > 0);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let mut page = KeysLikePage::default();
        // Keys of one transaction were made in one revision.
        let mut made: HashMap<String, i64> = HashMap::new();
        for kv in answer.kvs.iter().filter(|kv| kv.create_revision > after) {
            let Some(key) = kv.key.strip_prefix(self.prefix.as_bytes()) else {
                continue;
            };
            let key = String::from_utf8_lossy(key).into_owned();
            if !like::matches(pattern, &key) {
                continue;
            }
            let is_full = size.is_some_and(|size| page.keys.len() >= size);
            let last = page.keys.last().and_then(|key| made.get(key)).copied();
            if is_full && last != Some(kv.create_revision) {
                page.continuation = last.map(|last| format!("{revision}:{last}"));
                break;
            }
            made.insert(key.clone(), kv.create_revision);
            page.keys.push(key);
        }
        Ok(page)
    }

    async fn ping(&self) -> Result<(), Error> {
        let answer = self.client.range(one("health")).await;
        answer
            .map(drop)
            .map_err(|error| error.context("etcd store: error connecting to etcd"))
    }
}

/// The first key after all that start with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys from the prefix on.
    vec![0]
}
