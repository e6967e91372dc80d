//! Writes of the state stores: each on a connection of its own, or several in
//! one transaction.

use std::future::Future;
use std::time::Duration;

use outrider_components::Error;
use outrider_components::state::{DeleteRequest, Operation, SetRequest};
use sqlx::{Database, Pool, Transaction};

use crate::statement::{failed, in_time};

/// What a store does on a connection.
pub trait Writes: Sync {
    type Database: Database;

    fn pool(&self) -> &Pool<Self::Database>;

    /// For one request.
    fn timeout(&self) -> Duration;

    fn begin(
        &self,
    ) -> impl Future<Output = Result<Transaction<'static, Self::Database>, sqlx::Error>> + Send
    {
        self.pool().begin()
    }

    fn set_on(
        &self,
        connection: &mut <Self::Database as Database>::Connection,
        request: &SetRequest,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    fn delete_on(
        &self,
        connection: &mut <Self::Database as Database>::Connection,
        request: &DeleteRequest,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

pub async fn set<S: Writes>(store: &S, request: &SetRequest) -> Result<(), Error> {
    in_time(store.timeout(), async {
        let mut connection = store.pool().acquire().await.map_err(failed)?;
        store.set_on(&mut connection, request).await
    })
    .await
}

pub async fn delete<S: Writes>(store: &S, request: &DeleteRequest) -> Result<(), Error> {
    in_time(store.timeout(), async {
        let mut connection = store.pool().acquire().await.map_err(failed)?;
        store.delete_on(&mut connection, request).await
    })
    .await
}

/// All of them or none. One alone needs no transaction.
pub async fn transact<S: Writes>(store: &S, operations: &[Operation]) -> Result<(), Error> {
    if let [operation] = operations {
        return match operation {
            Operation::Upsert(request) => set(store, request).await,
            Operation::Delete(request) => delete(store, request).await,
        };
    }
    in_time(store.timeout(), async {
        let mut transaction = store.begin().await.map_err(failed)?;
        for operation in operations {
            match operation {
                Operation::Upsert(request) => store.set_on(&mut transaction, request).await?,
                Operation::Delete(request) => store.delete_on(&mut transaction, request).await?,
            }
        }
        transaction.commit().await.map_err(failed)
    })
    .await
}
