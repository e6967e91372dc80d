//! The store in this process: one file, and one thread that writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use outrider_proto::etcd::etcdserverpb::{
    DeleteRangeRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op,
};
use redb::{Database, ReadableDatabase as _};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tonic::Status;

use super::writer::{BYTES, NUMBERS, Order, REVISION, ROWS, Writer, is_for_writer};
use super::{Change, Kv, rows};

const FILE: &str = "jobs.redb";
/// Pages that are kept in memory, in bytes.
const CACHE: usize = 32 << 20;
/// Requests that wait for the writer at once.
const MOST_WAITING: usize = 8192;
/// Changes on their way to the engine.
const CHANGES: usize = 8192;
/// The words of etcd, which clients look for.
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use the data directory {0}: {1}")]
    Directory(PathBuf, io::Error),
    #[error("cannot open {0}: {1}")]
    Database(PathBuf, redb::Error),
}

/// What reader and writer share.
#[derive(Debug)]
pub struct Shared {
    revision: AtomicI64,
    bytes: AtomicI64,
    /// Of keys and values, in bytes.
    quota: i64,
    /// Nothing is added until somebody makes room and says so.
    no_space: AtomicBool,
    failure: watch::Sender<Option<String>>,
}

impl Shared {
    /// Whether there is space for what a transaction adds.
    pub(super) fn admit(&self, request: &TxnRequest, bytes: i64) -> Result<(), Status> {
        let added = i64::try_from(rows::cost(request, 0)?).unwrap_or(i64::MAX);
        if added == 0 {
            return Ok(());
        }
        if self.no_space.load(Ordering::Acquire) || bytes.saturating_add(added) > self.quota {
            self.no_space.store(true, Ordering::Release);
            return Err(Status::resource_exhausted(NO_SPACE));
        }
        Ok(())
    }

    pub(super) fn set(&self, revision: i64, bytes: i64) {
        self.revision.store(revision, Ordering::Release);
        self.bytes.store(bytes, Ordering::Release);
    }

    pub(super) fn fail(&self, status: &Status) {
        tracing::error!(target: "dapr.scheduler.store", "a commit failed: {}", status.message());
        self.failure.send_replace(Some(status.message().to_owned()));
    }
}

/// Cloning shares it. The writer ends with the last clone.
#[derive(Clone)]
pub struct Embedded {
    database: Arc<Database>,
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    waiting: Arc<Semaphore>,
    file: Arc<PathBuf>,
}

impl Embedded {
    /// Opens the store in `folder`, which is made if it is not there. Whatever
    /// changes from now on comes out of the receiver.
    pub fn open(folder: &Path, quota: i64) -> Result<(Self, mpsc::Receiver<Change>), OpenError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| OpenError::Directory(folder.to_owned(), error))?;
        let file = folder.join(FILE);
        let failed = |error: redb::Error| OpenError::Database(file.clone(), error);
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(&file)
            .map_err(|error| failed(error.into()))?;
        let (revision, bytes) = prepare(&database).map_err(failed)?;
        let shared = Arc::new(Shared {
            revision: AtomicI64::new(revision),
            bytes: AtomicI64::new(bytes),
            quota,
            no_space: AtomicBool::new(false),
            failure: watch::Sender::new(None),
        });
        let (orders, to_writer) = mpsc::unbounded_channel();
        let (changes_tx, changes) = mpsc::channel(CHANGES);
        let database = Arc::new(database);
        let writer = Writer {
            database: database.clone(),
            shared: shared.clone(),
            orders: to_writer,
            changes: changes_tx,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(|| writer.run())
            .map_err(|error| OpenError::Directory(folder.to_owned(), error))?;
        let store = Self {
            database,
            shared,
            orders,
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            file: Arc::new(file),
        };
        Ok((store, changes))
    }

    pub fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Bytes of keys and values.
    pub fn bytes_in_use(&self) -> i64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// Bytes of the file.
    pub fn file_size(&self) -> i64 {
        let size = std::fs::metadata(&*self.file).map_or(0, |it| it.len());
        i64::try_from(size).unwrap_or(i64::MAX)
    }

    pub fn is_out_of_space(&self) -> bool {
        self.shared.no_space.load(Ordering::Acquire)
    }

    /// Whoever made room says so.
    pub fn clear_no_space(&self) {
        self.shared.no_space.store(false, Ordering::Release);
    }

    /// Waits until a commit fails; after that the store has to be opened anew.
    pub async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        let seen = failure.wait_for(Option::is_some).await;
        let seen = seen.ok().and_then(|failure| failure.clone());
        match seen {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Deletes a range at once, for the start.
    pub async fn delete_range(&self, key: &[u8], end: &[u8]) -> Result<(), Status> {
        let request = DeleteRangeRequest {
            key: key.to_vec().into(),
            range_end: end.to_vec().into(),
            prev_kv: false,
        };
        let request = request_op::Request::RequestDeleteRange(request);
        let op = RequestOp {
            request: Some(request),
        };
        let request = TxnRequest {
            success: vec![op],
            ..TxnRequest::default()
        };
        self.txn(request).await.map(drop)
    }

    async fn read_range(
        &self,
        request: RangeRequest,
        counted: bool,
    ) -> Result<RangeResponse, Status> {
        let store = self.clone();
        let read = move || {
            let transaction = store.database.begin_read().map_err(rows::broken)?;
            let table = transaction.open_table(ROWS).map_err(rows::broken)?;
            rows::range(&table, &request, store.revision(), counted)
        };
        let read = tokio::task::spawn_blocking(read);
        read.await.map_err(rows::broken)?
    }

    /// Reads without waiting for anything but the disk.
    pub fn read(&self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        let transaction = self.database.begin_read().map_err(rows::broken)?;
        let table = transaction.open_table(ROWS).map_err(rows::broken)?;
        rows::read_txn(&table, request, self.revision())
    }
}

/// Makes the tables, and reads revision and size.
fn prepare(database: &Database) -> Result<(i64, i64), redb::Error> {
    let transaction = database.begin_write()?;
    let (revision, bytes);
    {
        transaction.open_table(ROWS)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        let read = |name| -> Result<Option<i64>, redb::Error> {
            use redb::ReadableTable as _;
            Ok(numbers.get(name)?.map(|it| it.value()))
        };
        revision = read(REVISION)?.unwrap_or(1);
        bytes = read(BYTES)?.unwrap_or(0);
        numbers.insert(REVISION, revision)?;
    }
    transaction.commit()?;
    Ok((revision, bytes))
}

#[async_trait]
impl Kv for Embedded {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.read_range(request, true).await
    }

    async fn page(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.read_range(request, false).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        if !is_for_writer(&request)? {
            return self.read(&request);
        }
        let _place = self.waiting.acquire().await.map_err(rows::broken)?;
        let (reply, answer) = oneshot::channel();
        let order = Order { request, reply };
        let ended = |_| Status::unavailable("the store is closed");
        self.orders.send(order).map_err(|_| ended(()))?;
        answer.await.map_err(|_| ended(()))?
    }
}
