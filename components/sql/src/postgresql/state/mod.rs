//! State stores on PostgreSQL. The two versions differ in their tables.

mod cleanup;
mod query;
mod table;
pub mod v1;
pub mod v2;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::state::{
    BulkItem, Concurrency, DeleteRequest, Feature, GetRequest, Item, KeysLikePage, KeysLikeRequest,
    Matches, Operation, Query, SetRequest, Store,
};
use outrider_components::{Error, Pairs};
use sqlx::postgres::{PgConnection, PgPool, PgRow, Postgres};
use sqlx::query::Query as Statement;
use sqlx::{AssertSqlSafe, Pool, Row, SqlStr};

use self::query::{Argument, Search};
use self::table::{Statements, Table};
use crate::cleanup::Background;
use crate::json;
use crate::statement::{failed, in_time};
use crate::store;
use crate::write::{self, Writes};

struct Postgresql {
    pool: PgPool,
    table: Table,
    statements: Statements,
    timeout: Duration,
    /// Whether statements are prepared once for each connection.
    persistent: bool,
    cleanup: Background,
}

type Bound = Statement<'static, Postgres, sqlx::postgres::PgArguments>;

impl Postgresql {
    fn statement(&self, sql: &SqlStr) -> Bound {
        sqlx::query(sql.clone()).persistent(self.persistent)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        in_time(self.timeout, work).await
    }
}

impl Writes for Postgresql {
    type Database = Postgres;

    fn pool(&self) -> &Pool<Self::Database> {
        &self.pool
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn set_on(
        &self,
        connection: &mut PgConnection,
        request: &SetRequest,
    ) -> Result<(), Error> {
        let key = store::non_empty(&request.key, "set operation")?;
        let seconds = store::seconds(request)?.map(i64::from);
        let etag = match request.etag() {
            Some(etag) => Some(self.table.etag(etag)?),
            None => None,
        };
        let sql = match (&etag, request.concurrency) {
            (Some(_), _) => &self.statements.set_etag,
            (None, Concurrency::FirstWrite) => &self.statements.set_new,
            (None, _) => &self.statements.set,
        };
        let statement = self.statement(sql).bind(key.to_owned());
        let mut statement = self.table.bind(statement, &request.value)?.bind(seconds);
        if let Some(etag) = etag {
            statement = statement.bind(etag);
        }
        let done = statement.execute(connection).await.map_err(failed)?;
        if done.rows_affected() == 0 {
            return Err(Error::etag_mismatch(""));
        }
        Ok(())
    }

    async fn delete_on(
        &self,
        connection: &mut PgConnection,
        request: &DeleteRequest,
    ) -> Result<(), Error> {
        let key = store::non_empty(&request.key, "delete operation")?;
        let statement = match request.etag() {
            None => self.statement(&self.statements.delete).bind(key.to_owned()),
            Some(etag) => self
                .statement(&self.statements.delete_etag)
                .bind(key.to_owned())
                .bind(self.table.etag(etag)?),
        };
        let done = statement.execute(connection).await.map_err(failed)?;
        if done.rows_affected() == 0 && request.etag().is_some() {
            return Err(Error::etag_mismatch(""));
        }
        Ok(())
    }
}

/// The key and the item of a row.
fn read(row: &PgRow) -> Result<(String, Item), Error> {
    let key: String = row.try_get("key").map_err(failed)?;
    let value: Vec<u8> = row.try_get("value").map_err(failed)?;
    let is_binary: bool = row.try_get("is_binary").map_err(failed)?;
    let expires: Option<i64> = row.try_get("expires").map_err(failed)?;
    let item = Item {
        value: if is_binary {
            json::bytes(&value)?
        } else {
            value.into()
        },
        etag: row.try_get("etag").map_err(failed)?,
        metadata: store::expiry(expires),
        content_type: None,
    };
    Ok((key, item))
}

#[async_trait]
impl Store for Postgresql {
    fn features(&self) -> &[Feature] {
        const FEATURES: [Feature; 5] = [
            Feature::Etag,
            Feature::Transactional,
            Feature::Ttl,
            Feature::KeysLike,
            Feature::QueryApi,
        ];
        let count = if self.can_query() { 5 } else { 4 };
        &FEATURES[..count]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        let key = store::non_empty(&request.key, "get operation")?;
        let row = self
            .in_time(async {
                self.statement(&self.statements.get)
                    .bind(key.to_owned())
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(failed)
            })
            .await?;
        row.map(|row| read(&row).map(|(_, item)| item)).transpose()
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        write::set(self, request).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        write::delete(self, request).await
    }

    async fn bulk_get(&self, requests: &[GetRequest], _: usize) -> Result<Vec<BulkItem>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = requests.iter().map(|r| r.key.clone()).collect();
        let rows = self
            .in_time(async {
                self.statement(&self.statements.bulk_get)
                    .bind(keys)
                    .fetch_all(&self.pool)
                    .await
                    .map_err(failed)
            })
            .await?;
        let mut found = HashMap::new();
        for row in &rows {
            let key: String = row.try_get("key").map_err(failed)?;
            found.insert(key, read(row).map(|(_, item)| item));
        }
        Ok(store::in_order(requests, &found))
    }

    async fn transact(&self, operations: &[Operation], _: &Pairs) -> Result<(), Error> {
        write::transact(self, operations).await
    }

    fn can_query(&self) -> bool {
        self.table.is_json()
    }

    async fn query(&self, query: &Query) -> Result<Matches, Error> {
        if !self.can_query() {
            return Err(Error::unsupported("the state store cannot be searched"));
        }
        let search = Search::new(query, &self.table)?;
        let mut statement = sqlx::query(AssertSqlSafe(search.sql.clone())).persistent(false);
        for argument in &search.arguments {
            statement = match argument {
                Argument::Text(text) => statement.bind(text.clone()),
                Argument::Path(names) => statement.bind(names.clone()),
            };
        }
        let rows = self
            .in_time(async { statement.fetch_all(&self.pool).await.map_err(failed) })
            .await?;
        search.matches(&rows)
    }

    /// In the order in which they were written first. The continuation is a
    /// row number.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        let pattern = request.pattern()?.to_owned();
        let after = store::page_start(request.continuation.as_deref())?;
        let limit = request.page_size.filter(|size| *size > 0);
        let rows = self
            .in_time(async {
                self.statement(&self.statements.keys_like)
                    .bind(pattern)
                    .bind(after)
                    .bind(limit.map(i64::from))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(failed)
            })
            .await?;
        let rows = rows.iter().map(|row| {
            let key = row.try_get(0).map_err(failed)?;
            Ok((key, row.try_get(1).map_err(failed)?))
        });
        Ok(store::page(rows.collect::<Result<_, Error>>()?, limit))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.in_time(async {
            let answer = sqlx::query("SELECT 1").persistent(false);
            answer.execute(&self.pool).await.map_err(failed).map(drop)
        })
        .await
    }

    async fn close(&self) -> Result<(), Error> {
        self.cleanup.stop().await;
        self.pool.close().await;
        Ok(())
    }
}
