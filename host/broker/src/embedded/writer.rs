//! What the broker's committer writes.

use std::sync::Arc;

use maxhost_group_commit::{Failure, Fault};
use maxhost_sqlite::{SqliteError, Writer};
use rusqlite::{Connection, Statement, params};
use tokio::sync::oneshot;

use crate::delivery::Message;
use crate::embedded::queues::{Entry, Queues};
use crate::error::{BrokerError, Permanent};
use crate::queue_name::QueueName;

type Reply<T> = oneshot::Sender<Result<T, BrokerError>>;

/// Every change of the file.
pub(super) enum Job {
    Create {
        name: QueueName,
        reply: Reply<i64>,
    },
    /// The bytes of the message are reserved in the entry; whoever finishes the job gives them back if it failed.
    Send {
        queues: Arc<Queues>,
        entry: Arc<Entry>,
        message: Message,
        reply: Reply<()>,
    },
    /// `bytes` are those of the message, which are given back when its row is gone.
    Ack {
        queues: Arc<Queues>,
        entry: Arc<Entry>,
        seq: i64,
        bytes: u64,
        reply: Reply<()>,
    },
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        const SMALL: usize = 256;
        match self {
            Job::Send { message, .. } => SMALL + message.body.len(),
            Job::Create { .. } | Job::Ack { .. } => SMALL,
        }
    }
}

/// What a job learns: a row, a message's number, or how many rows went.
pub(super) struct Written(i64);

pub(super) struct BrokerWriter<'c> {
    create: Statement<'c>,
    find: Statement<'c>,
    send: Statement<'c>,
    ack: Statement<'c>,
    /// Rises with every message, so order in a queue is order of sending.
    next: i64,
}

impl<'c> BrokerWriter<'c> {
    pub(super) fn new(conn: &'c Connection, next: i64) -> Result<BrokerWriter<'c>, SqliteError> {
        Ok(BrokerWriter {
            create: conn.prepare("INSERT OR IGNORE INTO queue (name) VALUES (?1)")?,
            find: conn.prepare("SELECT id FROM queue WHERE name = ?1")?,
            send: conn.prepare("INSERT INTO message (seq, queue, id, body) VALUES (?1, ?2, ?3, ?4)")?,
            ack: conn.prepare("DELETE FROM message WHERE seq = ?1 AND queue = ?2")?,
            next,
        })
    }

    fn write(&mut self, job: &Job) -> Result<Written, SqliteError> {
        match job {
            Job::Create { name, .. } => {
                self.create.execute([name.as_str()])?;
                Ok(Written(self.find.query_row([name.as_str()], |row| row.get(0))?))
            }
            Job::Send { entry, message, .. } => {
                let seq = self.next;
                self.next += 1;
                self.send.execute(params![seq, entry.row, &message.id.0[..], &message.body[..]])?;
                Ok(Written(seq))
            }
            Job::Ack { entry, seq, .. } => Ok(Written(self.ack.execute(params![seq, entry.row])? as i64)),
        }
    }
}

impl Writer for BrokerWriter<'_> {
    type Unit = Job;
    type Receipt = Written;
    type Error = BrokerError;

    fn begin(&mut self, _singly: bool) -> Result<(), Fault> {
        Ok(())
    }

    fn apply(&mut self, job: &Job, _again: bool) -> Result<Written, Failure<BrokerError>> {
        Ok(self.write(job)?)
    }

    fn seal(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn ended(&mut self, _committed: bool) {}

    fn finish(job: Job, outcome: Result<Written, BrokerError>) {
        // Whoever asked may have gone away; what was committed counts all the same.
        match job {
            Job::Create { reply, .. } => {
                let _ = reply.send(outcome.map(|Written(row)| row));
            }
            Job::Send { queues, entry, message, reply } => {
                match &outcome {
                    Ok(Written(seq)) => queues.arrived(&entry, *seq),
                    Err(_) => entry.give_back(message.bytes() as u64),
                }
                let _ = reply.send(outcome.map(|_| ()));
            }
            Job::Ack { queues, entry, bytes, reply, .. } => {
                if let Ok(Written(1)) = outcome {
                    entry.give_back(bytes);
                    queues.gone(&entry);
                }
                let _ = reply.send(outcome.map(|_| ()));
            }
        }
    }

    fn closed() -> BrokerError {
        Permanent::Closed.into()
    }
}
