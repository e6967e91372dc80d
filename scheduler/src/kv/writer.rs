//! The one thread that writes: everything that waits goes into one commit.

use std::sync::Arc;

use outrider_proto::etcd::etcdserverpb::{TxnRequest, TxnResponse};
use redb::{Database, ReadableTable, Table, TableDefinition};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::embedded::Shared;
use super::rows::{self, Changing, failed};
use super::{Change, reads_only};

pub(super) const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("kv");
pub(super) const NUMBERS: TableDefinition<'static, &'static str, i64> =
    TableDefinition::new("numbers");
/// Of the last change.
pub(super) const REVISION: &str = "revision";
/// Of keys and values.
pub(super) const BYTES: &str = "bytes";

/// Transactions of one commit.
const MOST_AT_ONCE: usize = 1024;

/// A transaction, and where its answer goes.
pub(super) struct Order {
    pub request: TxnRequest,
    pub reply: oneshot::Sender<Result<TxnResponse, Status>>,
}

/// What one commit has done.
struct Done {
    answers: Vec<Result<TxnResponse, Status>>,
    changes: Vec<Change>,
}

enum Failure {
    /// Of the store: nothing is written.
    Store(Status),
    /// One transaction cannot be done to its end: nothing is written.
    Refused(usize, Status),
}

fn store(error: impl Into<redb::Error>) -> Failure {
    Failure::Store(failed(error))
}

pub(super) struct Writer {
    pub database: Arc<Database>,
    pub shared: Arc<Shared>,
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// What is durable, in order.
    pub changes: mpsc::Sender<Change>,
}

impl Writer {
    /// Ends when nobody can give orders any more.
    pub fn run(mut self) {
        while let Some(first) = self.orders.blocking_recv() {
            let mut orders = vec![first];
            while orders.len() < MOST_AT_ONCE
                && let Ok(order) = self.orders.try_recv()
            {
                orders.push(order);
            }
            self.commit(orders);
        }
    }

    fn commit(&self, mut orders: Vec<Order>) {
        while !orders.is_empty() {
            match self.write(&orders) {
                Ok(done) => {
                    for change in done.changes {
                        if self.changes.blocking_send(change).is_err() {
                            break;
                        }
                    }
                    for (order, answer) in orders.into_iter().zip(done.answers) {
                        let _ = order.reply.send(answer);
                    }
                    return;
                }
                Err(Failure::Refused(which, status)) => {
                    let _ = orders.remove(which).reply.send(Err(status));
                }
                Err(Failure::Store(status)) => {
                    self.shared.fail(&status);
                    for order in orders {
                        let _ = order.reply.send(Err(status.clone()));
                    }
                    return;
                }
            }
        }
    }

    /// All of the transactions, or none. Each has its own answer, and its own
    /// revision if it changes something.
    fn write(&self, orders: &[Order]) -> Result<Done, Failure> {
        let mut transaction = self.database.begin_write().map_err(store)?;
        // After a crash a large file would otherwise be read as a whole before
        // the first job can fire.
        transaction.set_quick_repair(true);
        let mut done = Done {
            answers: Vec::with_capacity(orders.len()),
            changes: Vec::new(),
        };
        let (mut revision, mut bytes);
        {
            let mut table = transaction.open_table(ROWS).map_err(store)?;
            let mut numbers = transaction.open_table(NUMBERS).map_err(store)?;
            revision = number(&numbers, REVISION)?.max(1);
            bytes = number(&numbers, BYTES)?;
            for (which, order) in orders.iter().enumerate() {
                if let Err(status) = self.shared.admit(&order.request, bytes) {
                    done.answers.push(Err(status));
                    continue;
                }
                let mut changing = Changing {
                    table: &mut table,
                    revision: revision + 1,
                    bytes,
                    changes: Vec::new(),
                };
                let answer = changing.txn(&order.request, 0);
                if !changing.changes.is_empty() {
                    if let Err(status) = answer {
                        return Err(Failure::Refused(which, status));
                    }
                    revision += 1;
                }
                bytes = changing.bytes;
                done.changes.append(&mut changing.changes);
                done.answers.push(answer);
            }
            numbers.insert(REVISION, revision).map_err(store)?;
            numbers.insert(BYTES, bytes).map_err(store)?;
        }
        if done.changes.is_empty() {
            transaction.abort().map_err(store)?;
        } else {
            transaction.commit().map_err(store)?;
            self.shared.set(revision, bytes);
        }
        Ok(done)
    }
}

fn number(numbers: &Table<'_, &'static str, i64>, name: &str) -> Result<i64, Failure> {
    let found = numbers.get(name).map_err(store)?;
    Ok(found.map_or(0, |it| it.value()))
}

/// Whether a transaction may wait for the writer at all.
pub(super) fn is_for_writer(request: &TxnRequest) -> Result<bool, Status> {
    rows::cost(request, 0)?;
    Ok(!reads_only(request))
}
